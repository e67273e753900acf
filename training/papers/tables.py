"""Reads recipes of trainings, and runs tables of recipes/tables: each trains, measures and shows networks.

A table is a list of rows. Its sheet keeps of each its recipe, its figures, and the hash of its checkpoint.
"""

import json
import re
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load_file

from sketch_search import weights
from sketch_search.model import load
from sketch_search.model.engine import METHODS, Floats, Tokens, file_sha256, is_checkpoint, read_metadata, unit
from sketch_search.model.errors import ModelError
from sketch_search.model.files import MARK, check_replaceable
from sketch_search.model.torch import DEFAULT_CLIP, AnchorNetwork, Network, RetNetwork, find_device
from sketch_search.model.torch.checkpoint import load_network, replacing
from sketch_search.training.corpus import Corpus, Picture, data_folder, read_clip_vectors
from sketch_search.training.evaluation.answers import clip_vectors, costs_of, search_in_two_stages
from sketch_search.training.evaluation.figures import ALL, bootstrap, measure, title
from sketch_search.training.evaluation.scoring import encode_both, task_matrices, trained_matcher
from sketch_search.training.pages import cpu_name
from sketch_search.training.pages import table as markdown_table
from sketch_search.training.papers import recipe as recipes
from sketch_search.training.papers.clip_at import ClipAtRecipe, clip_at_trainer
from sketch_search.training.papers.sketch_an_anchor import AnchorRecipe, anchor_trainer
from sketch_search.training.papers.trainer import Run, digest, train_from_backbone
from sketch_search.training.papers.two_sided import TwoSidedRecipe, train_two_sided
from sketch_search.training.papers.zse import ZseRecipe, zse_trainer
from sketch_search.training.tasks import Protocol, Task, answerable, read_task, some_of_each

AnyRecipe: TypeAlias = ZseRecipe | TwoSidedRecipe | AnchorRecipe | ClipAtRecipe
_KINDS = {kind.method: TypeAdapter[AnyRecipe](kind) for kind in get_args(AnyRecipe)}


def read_recipe(path: Path, changes: Mapping[str, Any] | None = None) -> AnyRecipe:
    """Reads a recipe from a TOML file, or by a name such as "zse/paper", with ``changes`` of its keys.

    The key ``base`` names a recipe that this one changes, table by table; ``method`` the method, ZSE-SBIR without.
    Raises ModelError for a file that cannot be used, with its name and what is wrong in it.
    """
    path = recipes.recipe_file(path)
    try:
        content = recipes.merge(recipes.read_content(path), changes or {})
        method = content.pop("method", None)
        if method not in _KINDS:
            raise ValueError(f"there is no method {method!r}")
        recipe = _KINDS[method].validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        why = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        raise recipes.unusable(path, why, changes) from error
    except RecursionError as error:
        raise recipes.unusable(path, "it is its own base, or nested too deeply") from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise recipes.unusable(path, str(error), changes) from error
    try:
        recipe.check()
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    return recipe


def network_of(recipe: AnyRecipe) -> RetNetwork:
    """Makes the network of a recipe with random weights. Raises ModelError if its backbone decides what it is."""
    if isinstance(recipe, ZseRecipe):
        return Network(recipe.config).eval()
    if isinstance(recipe, AnchorRecipe):
        return AnchorNetwork(recipe.config).eval()
    raise ModelError(f"the network of a recipe of {recipe.title} depends on its backbone; name a checkpoint")


# What trains by each kind of recipe, from the recipe and the options; the next call continues a stopped training.
TRAININGS: Mapping[type[recipes.Recipe], Callable[[Any, Run], None]] = {
    ZseRecipe: partial(train_from_backbone, zse_trainer),
    TwoSidedRecipe: train_two_sided,
    AnchorRecipe: partial(train_from_backbone, anchor_trainer),
    ClipAtRecipe: partial(train_from_backbone, clip_at_trainer),
}


TABLES = recipes.RECIPES / "tables"
PHOTO_SIDE = Path(weights.__file__).with_name("photo-side.safetensors")
# What a row has from the row whose training it measures, unless it says another.
_OF_TRAINING = ("recipe", "backbone", "set", "measure", "learns", "seeds")
_DRAWS = 4  # of random scores, whose figures are chance
_FORMULAS = (
    "average precision is interpolated, over min(100, relevant); by the report's code, plain precision over the "
    "relevant photos that were found, which hides lost ones"
)


@dataclass(frozen=True, kw_only=True)
class Measure(recipes.Table):
    """The measurement of a row; see ``read_task``, and ``search_in_two_stages`` for ``clusters`` and ``nprobe``.

    vectors: whether only photos are searched of which the data has CLIP's vectors. by: what makes the clusters: those,
    or ``clip`` if it is on this disk, else [Ret]; [Ret] in any case; or a map of [Ret] into CLIP's space.
    """

    protocol: Protocol = "zero-shot"
    split: str | None = None
    trained_on: str | None = None
    every: tuple[int, int] = (1, 1)
    each: int = 0  # the most sketches of each class; 0 for all
    clusters: int = 0
    nprobe: int = 1
    clip: str = DEFAULT_CLIP
    vectors: bool = False
    by: Literal["clip", "map", "ret"] = "clip"


@dataclass(frozen=True, kw_only=True)
class Row(recipes.Table):
    """A row of a table. ``set`` overrides keys of its recipe, or network; ``measure`` those of the table."""

    name: str
    recipe: str = ""
    checkpoint: str = ""  # a shipped one, such as zero-shot, instead of a recipe
    backbone: str = "vit_tiny_patch16_224.safetensors"  # of the data folder, or a shipped one's name, such as zero-shot
    set: dict[str, Any] = field(default_factory=dict)
    measure: dict[str, Any] = field(default_factory=dict)
    training: str = ""  # the row before it whose training it measures otherwise; what determines it is not said again
    learns: bool = True  # False trains it for one step at rates of 0, to measure what it starts as
    seeds: tuple[int, ...] = (0,)  # their figures are averaged query by query
    method: Literal["rn", "ret", "fused"] | None = None  # of scoring; None for the network's best
    reported: str = ""  # what the paper reports, by its own data, of its own network


@dataclass(frozen=True, kw_only=True)
class PaperTable(recipes.Table):
    """A table of a paper."""

    title: str
    row: tuple[Row, ...]
    set: dict[str, Any] = field(default_factory=dict)
    measure: dict[str, Any] = field(default_factory=dict)
    columns: tuple[str, ...] = ("map_all", "precision_100")  # figures, of which the first is drawn
    costs: bool = False  # whether parameters and multiply-adds are counted
    # Figures of the rows; validation figures by pictures seen; or the distance from centroids by clusters.
    plot: Literal["rows", "curve", "elbow"] = "rows"

    def recipe(self, row: Row, seed: int) -> AnyRecipe:
        """Reads the recipe of a row."""
        changes = recipes.merge(recipes.merge(self.set, row.set), {"seed": seed})
        recipe = read_recipe(Path(row.recipe), changes)
        if row.learns:
            return recipe
        still = {name: 0.0 for name in vars(recipe.optimiser) if name.endswith("rate")}
        return read_recipe(
            Path(row.recipe), recipes.merge(changes, {"steps": 1, "evaluate_every": 1, "optimiser": still})
        )


def read_table(name: str) -> PaperTable:
    """Reads a table by its name. Raises ModelError, with the known names, if there is none."""
    known = sorted(path.stem for path in TABLES.glob("*.toml"))
    if name not in known:
        raise ModelError(f"there is no table {name}; name one of {', '.join(known)}")
    content, rows = tomllib.loads((TABLES / f"{name}.toml").read_text("utf-8")), dict[str, dict[str, Any]]()
    for row in content["row"]:
        trained = rows[row["training"]] if "training" in row else {}
        rows[row["name"]] = {key: trained[key] for key in _OF_TRAINING if key in trained} | row
    return TypeAdapter(PaperTable).validate_python(content | {"row": list(rows.values())})


@dataclass(frozen=True)
class Shown:
    """A table that was run. missing: names of rows that were not run, with the reason if they were to be."""

    table: PaperTable
    rows: Sequence[Mapping[str, Any]]
    missing: Mapping[str, str]
    about: str

    def markdown(self) -> str:
        """Writes the table, and below it what is missing, and where and when it was made."""
        titles, lines = [title(name) for name in self.table.columns], []
        reported = {row.name: row.reported for row in self.table.row}
        seeds = {row.name: str(len(row.seeds)) for row in self.table.row if row.seeds[1:]}
        for row in self.rows:
            first, *others = row["figures"].values()
            interval = f"{first['value']:.3f} ± {(first['high'] - first['low']) / 2:.3f}"
            lines.append(
                {"network": row["network"], "ranks by": row["ranks by"]}
                | {name: f"{row[name]:,}" for name in ("steps", "queries", "photos") if name in row}
                | {"validation": f"{row['validation']:.3f}" if "validation" in row else ""}
                | dict(zip(titles, [interval, *(f"{figure['value']:.3f}" for figure in others)], strict=True))
                | {"seeds": ", ".join(f"{mean:.3f}" for mean in row.get("seeds", ())) or seeds.get(row["network"], "")}
                | {"chance": f"{row['chance']:.3f}" if row.get("chance") is not None else ""}
                | {name: f"{value:,.3f}" if value else "" for name, value in row["costs"].items()}
                | {"the paper reports": reported[row["network"]]}
            )
        shown = [name for name in lines[0] if any(line.get(name) for line in lines)]
        # A column with the same text in every row is said once, above the table.
        same = {name: lines[0][name] for name in shown[1:] if 1 == len({line.get(name) for line in lines}) < len(lines)}
        shown = [name for name in shown if name not in same]
        body = markdown_table([shown, *([line.get(name, "") for name in shown] for line in lines)])
        # A row says itself what it was trained on, and evaluate the rest.
        texts = (re.split("(?:^|; )(?:this|name|valid) ", text)[0] for row in self.rows for text in row["about"])
        said = dict.fromkeys(text[0].upper() + text[1:] for text in texts if text)
        left = "; ".join(name + f" ({why})" * bool(why) for name, why in self.missing.items())
        notes = [*said, *([f"Not run: {left}"] if left else [])]
        head = f"{self.table.title}."
        if same:
            head += f" In all rows: {', '.join(f'{name} {text}' for name, text in same.items())}."
        parts = [head, body, "\n".join(f"- {note}." for note in notes)]
        return "\n\n".join(filter(None, [*parts, self.about]))

    def plot(self, target: Path) -> None:
        """Draws the figure of the table to a file. Raises ModelError without matplotlib."""
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            remedy = "pip install 'sketch-search[train]'; the table needs none"
            raise ModelError(f"plots need matplotlib: {remedy}") from error
        figure, first, curve = Figure((8, 4), layout="constrained"), self.table.columns[0], self.table.plot == "curve"
        axes = figure.subplots()
        if self.table.plot == "elbow":
            network, photos = (self.rows[0][name] for name in ("checkpoint", "photos"))
            alike = [row["costs"] for row in self.rows if (row["checkpoint"], row["photos"]) == (network, photos)]
            bends = sorted((costs["clusters"], costs["distance from centroids"]) for costs in alike)
            axes.plot(*zip(*bends, strict=True), marker=".")
            axes.set(xlabel="clusters", ylabel="mean square distance from centroids")
        else:
            for place, row in enumerate(self.rows):
                if curve:
                    axes.plot(*zip(*row["curve"], strict=True), marker=".", label=row["network"])
                else:
                    value, low, high = row["figures"][first].values()
                    axes.errorbar(value, place, xerr=[[value - low], [high - value]], fmt="o", label=row["network"])
            axes.set(xlabel="pictures seen" if curve else title(first))
            axes.set(ylabel="mAP@all on validation classes" if curve else "rows, the last on top")
            figure.legend(loc="outside right upper", frameon=False)
        check_replaceable(target)
        figure.savefig(target, metadata={"Creator": MARK})


@dataclass(frozen=True)
class TableRun:
    """The options of ``python -m training table``."""

    data: Path | None = None  # class folders; None for the data that SKETCH_SEARCH_DATA names
    words: Path | None = None  # a file of word vectors
    backbone: str | None = None  # the ViT to start from, a file or a timm tag; None for that of the data folder
    rows: tuple[str, ...] = ()  # names; empty for all
    folder: Path = Path("runs/tables")  # keeps all trainings; those that were stopped go on
    device: str = "cpu"  # where the steps of trainings are computed; rows are measured on the CPU
    sheets: Path | None = None  # a folder of sheets: rows that are in one are read, and others are added
    kept: bool = False  # whether rows that are in no sheet are left out
    # Rows that differ in clusters and nprobe alone share their tokens, which are the slowest part, and CLIP's vectors.
    tokens: dict[str, tuple[Tokens, Tokens]] = field(default_factory=dict)
    vectors: dict[str, tuple[Floats, str]] = field(default_factory=dict)

    def run(self, name: str) -> Shown:
        """Trains and measures the rows. Raises ModelError."""
        table, sheet = read_table(name), self.sheets and self.sheets / f"{name}.json"
        known = [row.name for row in table.row]
        if unknown := sorted(set(self.rows) - set(known)):
            raise ModelError(f"{name} has no row {unknown[0]}; its rows are {', '.join(known)}")
        kept = {row["network"]: row for row in json.loads(sheet.read_text())} if sheet and sheet.exists() else {}
        rows, missing = list[dict[str, Any]](), dict[str, str]()
        for row in table.row:
            if (self.rows and row.name not in self.rows) or (self.kept and row.name not in kept):
                missing[row.name] = ""
                continue
            try:
                determining, hashes = self._determining(table, row), self._hashes(row)
                if row.name in kept:
                    self._check(f"{row.name} in {sheet}", kept[row.name], determining, hashes)
                else:
                    figures = {**self._row(name, table, row), "chance": self._chance(table, row)}
                    made = {"made": _describe_run(self.device), "determining": determining, "hashes": hashes}
                    kept[row.name] = {"network": row.name, **figures, **made}
                    if sheet:
                        sheet.parent.mkdir(parents=True, exist_ok=True)
                        lines = (json.dumps(kept[key]) for key in known if key in kept)
                        with replacing(sheet) as partial:
                            partial.write_text("[\n" + ",\n".join(lines) + "\n]\n")
                rows.append(kept[row.name])
            except ModelError as error:
                missing[row.name] = str(error)
        if not rows:
            none = f"{self.sheets} has no sheet of {name}; leave out --kept to run its rows"
            raise ModelError(next(filter(None, missing.values()), none))
        seeds = ", ".join(str(seed) for seed in sorted({seed for row in table.row for seed in row.seeds}))
        about = f"Seeds {seeds}; " if any(row.recipe for row in table.row) else ""
        days = dict[str, set[str]]()
        for machine, _, day in (row["made"].rpartition(", ") for row in rows):
            days.setdefault(machine, set()).add(day)
        machines = "; ".join(f"{machine}, {', '.join(sorted(days[machine]))}" for machine in days)
        return Shown(table, rows, missing, f"{about}{machines}.")

    def _check(self, what: str, kept: dict[str, Any], determining: dict[str, Any], hashes: dict[str, str]) -> None:
        """Raises ModelError if a row was made by another recipe, or from other files than those on this disk."""
        # A row may lack keys that recipes have had since.
        if recipes.merge(determining, kept["determining"]) != determining:
            raise ModelError(f"{what} is of another recipe or measure; remove it to run the row again")
        if changed := [name for name, digest in hashes.items() if kept["hashes"].get(name) != digest]:
            raise ModelError(f"{what} is of other {' and '.join(changed)}; remove it to run the row again")

    def _determining(self, table: PaperTable, row: Row) -> dict[str, Any]:
        """Returns all that determines the figures of a row but the contents of files."""
        recipe = asdict(table.recipe(row, row.seeds[0])) if row.recipe else {"set": row.set} if row.set else {}
        start = {"backbone": row.backbone, "method": row.method, "measure": recipes.merge(table.measure, row.measure)}
        return dict(json.loads(json.dumps(start | recipe)))

    def _hashes(self, row: Row) -> dict[str, str]:
        """Returns the SHA-256 of the weights that a row reads, and of the split, of those that are on this disk."""
        hashes = dict[str, str]()
        with suppress(ModelError):
            if (path := Path(self._weights(row))).is_file():
                hashes["weights"] = _hash_read(path)
            if not self.data and (split := data_folder() / "data" / "split.json").is_file():
                hashes["split"] = file_sha256(split)
        return hashes

    def _weights(self, row: Row) -> str:
        """Names the weights that a row measures or starts from, a file or a timm tag. Raises ModelError."""
        shipped = PHOTO_SIDE.with_name(f"{row.checkpoint or row.backbone}.safetensors")
        if self.backbone and not row.checkpoint:
            return self.backbone
        return str(shipped if row.checkpoint or shipped.is_file() else data_folder() / "data" / row.backbone)

    def _row(self, name: str, table: PaperTable, row: Row) -> dict[str, Any]:
        """Trains a row by each of its seeds, and measures the networks."""
        checkpoints, training = [Path(self._weights(row))], dict[str, Any]()
        if row.recipe:
            of_seeds = [table.recipe(row, seed) for seed in row.seeds]
            slug = re.sub(r"\W+", "-", (row.training or row.name).lower()).strip("-")
            folders = [self.folder / name / f"{slug}-{recipe.seed}" for recipe in of_seeds]
            start = self._weights(row)
            checkpoints = [self._train(*pair, start) for pair in zip(of_seeds, folders, strict=True)]
            validation = json.loads(read_metadata(checkpoints[0])["validation"])
            log = map(json.loads, (checkpoints[0].parent / "log.jsonl").read_text().splitlines())
            shown = f"val_{row.method or ''}"
            curve = [(e["step"], [value for name, value in e.items() if name.startswith(shown)]) for e in log]
            training = {
                "steps": of_seeds[0].steps if row.learns else 0,
                "validation": max(float(value) for way, value in validation.items() if way in METHODS),
                "curve": [(step * of_seeds[0].pictures, max(values)) for step, values in curve if values],
            }
        measured = [self._measure(table, row, checkpoint) for checkpoint in checkpoints]
        values = np.mean([figures for figures, _ in measured], axis=0)
        figures = dict(zip(table.columns, map(asdict, bootstrap(values.T)), strict=True))
        if row.seeds[1:]:
            training["seeds"] = sorted(float(figures[0].mean()) for figures, _ in measured)
        counts = {"checkpoint": file_sha256(checkpoints[0]), **training, "queries": values.shape[1]}
        return counts | measured[0][1] | {"figures": figures}

    def _train(self, recipe: AnyRecipe, folder: Path, backbone: str) -> Path:
        """Trains in a folder, from where an earlier training in it ended; returns the checkpoint."""
        device, target = find_device(self.device), folder / "final.safetensors"
        run = Run(Path(recipe.title), backbone, folder, target, self.data, words=self.words, device=device)
        with redirect_stdout(sys.stderr):
            TRAININGS[type(recipe)](recipe, run)
        return target

    def task_of(self, where: Measure) -> Task:
        """Reads the task of a row."""
        task = read_task(where.protocol, None if self.data else where.split, where.trained_on, self.data)
        task = task.subsample(*where.every)
        corpus = task.corpus
        if where.vectors:
            corpus = answerable(Corpus(corpus.sketches, tuple(read_clip_vectors(data_folder(), corpus.photos))))
        if where.each:
            corpus = Corpus(some_of_each(corpus.sketches, where.each), corpus.photos)
        return replace(task, corpus=corpus)

    def _vectors(self, where: Measure, photos: Sequence[Picture], ret: Floats) -> tuple[Floats, str]:
        """Returns the vectors of photos that make clusters, and what these are, unless the row says it."""
        if where.by == "ret":
            return ret, ""
        known = read_clip_vectors(data_folder(), photos) if where.vectors or where.by == "map" else {}
        if where.vectors:
            return np.stack([known[photo] for photo in photos]), ""
        if where.by == "map":
            from sklearn.linear_model import RidgeCV

            taught = [row for row, photo in enumerate(photos) if photo in known]
            ridge = RidgeCV(np.logspace(-3, 3, 7)).fit(unit(ret[taught]), np.stack([*known.values()]))
            mapped = np.asarray(ridge.predict(unit(ret)), np.float32)
            return mapped, f"the map, a ridge regression, learnt from the {len(taught)} photos with CLIP's vectors"
        vectors, why = clip_vectors(photos, where.clip)
        return (ret, f"clusters are by [Ret]: {why}") if vectors is None else (vectors, f"clusters are by {why}")

    def _chance(self, table: PaperTable, row: Row) -> float | None:
        """Returns the first figure by chance, exact or of random scores; None without the data, or with clusters."""
        where = TypeAdapter(Measure).validate_python(recipes.merge(table.measure, row.measure))
        try:
            task = self.task_of(where)
        except ModelError:
            return None
        if where.clusters:
            return None
        first = table.columns[0]
        if exact := measure(task, {}).figures.get("chance"):
            return exact[ALL][first]
        queries, photos = len(task.corpus.sketches), len(task.corpus.photos)
        size = (queries + photos, queries + photos) if task.protocol == "within" else (queries, photos)
        draws = (np.random.default_rng(seed).random(size, np.float32) for seed in range(_DRAWS))
        return float(np.mean([measure(task, {"ret": draw}).per_query["ret"][first] for draw in draws]))

    def _measure(self, table: PaperTable, row: Row, checkpoint: Path) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """Measures a network, in float32, so that all machines find the same: (columns, queries), and what it was."""
        where = TypeAdapter(Measure).validate_python(recipes.merge(table.measure, row.measure))
        task, about = self.task_of(where), list[str]()
        matcher, network = load(checkpoint, dtype="float32", variants=1), load_network(checkpoint)
        if row.checkpoint and row.set:
            network = network.with_config(**row.set["network"])
            matcher = trained_matcher(network)
        method = "ret" if task.protocol == "within" else row.method or matcher.best_method
        costs = costs_of(network) if table.costs else {}
        if where.clusters:
            method, key = "rn", repr((checkpoint, replace(where, clusters=0, nprobe=0, by="clip")))
            if key not in self.tokens:
                self.tokens[key] = encode_both(matcher, task.corpus)
            if (by := f"{key} {where.by}") not in self.vectors:
                self.vectors[by] = self._vectors(where, task.corpus.photos, self.tokens[key][1].ret)
            tokens, (vectors, why) = self.tokens[key], self.vectors[by]
            about = [*filter(None, [why]), _FORMULAS]
            figures, more = search_in_two_stages(matcher, task.corpus, tokens, vectors, where.clusters, where.nprobe)
            costs |= more | {"clusters": float(where.clusters)}
        else:
            evaluation = measure(task, task_matrices(matcher, task, [method]))
            figures, first = evaluation.per_query[method], table.columns[0]
            for group, means in evaluation.figures[method].items() if task.protocol == "within" else ():
                costs |= {f"{title(first)}: {group}": means[first]} if group != ALL else {}
        if lacking := sorted(set(table.columns) - set(figures)):
            raise ModelError(f"{task.protocol} has no figure {', '.join(lacking)}, but {', '.join(figures)}")
        # A table has no groups of queries.
        about += [sentence for sentence in task.about if not sentence.startswith(tuple(task.groups))]
        measured = {"ranks by": method, "photos": len(task.corpus.photos), "costs": costs, "about": about}
        return np.stack([figures[name] for name in table.columns]), measured


def _hash_read(path: Path) -> str:
    """Returns a digest of what rows read of a file: neither a checkpoint's notes nor how it divides drawings."""
    if not is_checkpoint(path):
        return file_sha256(path)
    return digest("", {name: value for name, value in load_file(path).items() if not name.startswith("parting.")})


def _describe_run(device: str) -> str:
    """Returns the machine, the device of the training if it is another one, and the day of a row."""
    trained = find_device(device)
    gpu = f"trained on {torch.cuda.get_device_name(trained)}, " if trained.type == "cuda" else ""
    return f"{cpu_name()}, {gpu}{datetime.now(UTC).date().isoformat()}"
