"""Runs tables of recipes/tables: each trains and measures the networks that its file names, and shows them.

Trainings are kept in a folder for each row, and its figures in a sheet.
"""

import json
import platform
import re
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import TypeAdapter

from sketch_search import weights
from sketch_search.model import load
from sketch_search.model.engine import Floats, Tokens, file_sha256, read_metadata
from sketch_search.model.errors import ModelError
from sketch_search.model.files import MARK, check_replaceable
from sketch_search.model.training.checkpoint import load_network, replacing
from sketch_search.model.training.datasets import (
    Corpus,
    Picture,
    Protocol,
    Task,
    answerable,
    data_folder,
    read_clip_vectors,
    read_task,
    some_of_each,
)
from sketch_search.model.training.evaluation import (
    ALL,
    TITLES,
    bootstrap,
    clip_vectors,
    costs_of,
    encode_both,
    measure,
    search_in_two_stages,
    task_matrices,
    trained_matcher,
)
from sketch_search.model.training.network import DEFAULT_CLIP, find_device
from sketch_search.model.training.papers.recipe import RECIPES, Table, merge
from sketch_search.model.training.papers.runs import Diverged, Run
from sketch_search.model.training.papers.trainings import TRAININGS, AnyRecipe, read_within_budget

TABLES = RECIPES / "tables"
PHOTO_SIDE = Path(weights.__file__).with_name("photo-side.safetensors")
_FORMULAS = (
    "average precision is interpolated, over min(100, relevant); by the report's code, plain precision over the "
    "relevant photos that were found, which hides lost ones"
)


@dataclass(frozen=True, kw_only=True)
class Measure(Table):
    """The measurement of a row; see ``read_task``, and ``search_in_two_stages`` for ``clusters`` and ``nprobe``.

    vectors: whether only photos are searched of which the data has CLIP's vectors. by: what makes the clusters: those,
    or ``clip`` if it is on this disk, else [Ret]; or [Ret] in any case.
    """

    protocol: Protocol = "zero-shot"
    split: str | None = None
    every: tuple[int, int] = (1, 1)
    each: int = 0  # the most sketches of each class; 0 for all
    clusters: int = 0
    nprobe: int = 1
    clip: str = DEFAULT_CLIP
    vectors: bool = False
    by: Literal["clip", "ret"] = "clip"


@dataclass(frozen=True, kw_only=True)
class Row(Table):
    """A row of a table. ``set`` overrides keys of its recipe, or network; ``measure`` those of the table."""

    name: str
    recipe: str = ""
    checkpoint: str = ""  # a shipped one, such as zero-shot, instead of a recipe
    backbone: str = "vit_tiny_patch16_224.safetensors"  # of the data folder, or a shipped one's name, such as zero-shot
    set: dict[str, Any] = field(default_factory=dict)
    measure: dict[str, Any] = field(default_factory=dict)
    budget: int | None = None  # pictures of its training; None for the table's; 0 leaves it untrained
    rates: tuple[float, ...] = (1.0,)  # factors of its learning rates; the best on validation classes is measured
    seeds: tuple[int, ...] = (0,)  # their figures are averaged query by query
    method: Literal["rn", "ret", "fused"] | None = None  # of scoring; None for the network's best
    reported: str = ""  # what the paper reports, by its own data, of its own network


@dataclass(frozen=True, kw_only=True)
class PaperTable(Table):
    """A table of a paper. Each row is compared with the first one that has the same start, queries and photos, by the
    row's method of scoring in both.
    """

    title: str
    row: tuple[Row, ...]
    # Below it, hardly any row finds more than what was not trained.
    budget: int = 16_000
    set: dict[str, Any] = field(default_factory=dict)
    measure: dict[str, Any] = field(default_factory=dict)
    columns: tuple[str, ...] = ("map_all", "precision_100")  # figures, of which the first is compared and drawn
    costs: bool = False  # whether parameters and multiply-adds are counted
    # Figures of the rows; validation figures by pictures seen; or the distance from centroids by clusters.
    plot: Literal["rows", "curve", "elbow"] = "rows"


def read_table(name: str) -> PaperTable:
    """Reads a table by its name. Raises ModelError, with the known names, if there is none."""
    known = sorted(path.stem for path in TABLES.glob("*.toml"))
    if name not in known:
        raise ModelError(f"there is no table {name}; name one of {', '.join(known)}")
    return TypeAdapter(PaperTable).validate_python(tomllib.loads((TABLES / f"{name}.toml").read_text("utf-8")))


@dataclass(frozen=True)
class Shown:
    """A table that was run. missing: names of rows that were not run, with the reason if they were to be."""

    table: PaperTable
    rows: Sequence[Mapping[str, Any]]
    missing: Mapping[str, str]
    about: str

    def markdown(self) -> str:
        """Writes the table, and below it what is missing, and where, when and by which command it was made."""
        titles, lines = [TITLES[name] for name in self.table.columns], []
        of_table = {row.name: row for row in self.table.row}
        for row in self.rows:
            told = of_table[row["network"]]
            ended = {k: "diverged" if v is None else f"{v:.3f}" for k, v in row["validation"].items()}
            first, *others = row["figures"].values()
            values = [_interval(first), *(f"{figure['value']:.3f}" for figure in others)]
            steps = f"{row['steps']:,}" if "steps" in row else ""
            by_rate = [f"{rate}: {figure}" if len(ended) > 1 else figure for rate, figure in ended.items()]
            lines.append(
                {"network": row["network"], "ranks by": row["ranks by"], "steps": steps}
                | {name: f"{row[name]:,}" for name in ("queries", "photos")}
                | {"validation": ", ".join(by_rate)}
                | dict(zip(titles, values, strict=True))
                | {f"{titles[0]} less the first row": _interval(row["difference"], "+.3f") if row["difference"] else ""}
                | {title: f"{value:,.3f}" if value else "" for title, value in row["costs"].items()}
                | {"the paper reports": told.reported}
            )
        shown = [name for name in lines[0] if any(line.get(name) for line in lines)]
        # A column with the same text in every row is said once, above the table.
        same = {name: lines[0][name] for name in shown[1:] if len({line.get(name) for line in lines}) == 1}
        same = same if len(lines) > 1 else {}
        shown = [name for name in shown if name not in same]
        cells = [shown, *([line.get(name, "") for name in shown] for line in lines)]
        names, *others = (f"| {' | '.join(line)} |" for line in cells)
        body = "\n".join([names, "|---" * len(shown) + "|", *others])
        said = dict.fromkeys(sentence[0].upper() + sentence[1:] for row in self.rows for sentence in row["about"])
        failed = [f"Not run: {name} ({why})" for name, why in self.missing.items() if why]
        left = "; ".join(name for name, why in self.missing.items() if not why)
        notes = [*said, *failed, *([f"Not run: {left}"] if left else [])]
        head = f"{self.table.title}; ± is half of the 95% interval over queries."
        if same:
            head += f" In all rows: {', '.join(f'{name} {text}' for name, text in same.items())}."
        parts = [head, body, "\n".join(f"- {note}." for note in notes)]
        return "\n\n".join(filter(None, [*parts, self.about]))

    def plot(self, target: Path) -> None:
        """Draws the figure of the table to a file. Raises ModelError without matplotlib."""
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ModelError(
                "plots need matplotlib: pip install 'sketch-search[train]'; the table needs none"
            ) from error
        figure, title, curve = Figure((8, 4), layout="constrained"), self.table.columns[0], self.table.plot == "curve"
        axes = figure.subplots()
        if self.table.plot == "elbow":
            first = [row["costs"] for row in self.rows if row["task"] == self.rows[0]["task"]]
            bends = {costs["clusters"]: costs["distance from centroids"] for costs in first}
            axes.plot(*zip(*sorted(bends.items()), strict=True), marker=".")
            axes.set(xlabel="clusters", ylabel="mean square distance from centroids")
        else:
            for place, row in enumerate(self.rows):
                if curve:
                    axes.plot(*zip(*row["curve"], strict=True), marker=".", label=row["network"])
                else:
                    value, low, high = row["figures"][title].values()
                    axes.errorbar(value, place, xerr=[[value - low], [high - value]], fmt="o", label=row["network"])
            axes.set(xlabel="pictures seen" if curve else TITLES[title])
            axes.set(ylabel="mAP@all on validation classes" if curve else "rows, the last on top")
            figure.legend(loc="outside right upper", frameon=False)
        check_replaceable(target)
        figure.savefig(target, metadata={"Creator": MARK})


@dataclass(frozen=True)
class TableRun:
    """The options of ``python -m model table``, and the tokens and vectors that its rows share."""

    data: Path | None = None  # class folders; None for the data that SKETCH_SEARCH_DATA names
    words: Path | None = None  # a file of word vectors
    backbone: str | None = None  # the ViT to start from, a file or a timm tag; None for that of the data folder
    budget: int | None = None  # pictures of each training; None for the table's
    rows: tuple[str, ...] = ()  # names; empty for all
    folder: Path = Path("runs/tables")  # keeps all trainings
    device: str = "cpu"  # where the steps of trainings are computed; rows are measured on the CPU
    resume: bool = False  # whether trainings that were stopped go on
    sheets: Path | None = None  # a folder of sheets: rows that have one are read, and others leave one
    kept: bool = False  # whether rows without a sheet are left out
    tokens: dict[str, tuple[Tokens, Tokens]] = field(default_factory=dict)
    # By CLIP, and a sentence on what makes clusters.
    vectors: dict[str, tuple[Floats | None, str]] = field(default_factory=dict)

    def run(self, name: str, command: str) -> Shown:
        """Trains and measures the rows; ``command`` is written below the table. Raises ModelError."""
        table = read_table(name)
        known = [row.name for row in table.row]
        if unknown := sorted(set(self.rows) - set(known)):
            raise ModelError(f"{name} has no row {unknown[0]}; its rows are {', '.join(known)}")
        rows: list[dict[str, Any]] = []
        missing = {row: "" for row in known if self.rows and row not in self.rows}
        if self.kept:
            missing |= {row.name: "" for row in table.row if not self._sheet(name, table, row).is_file()}
        for row in table.row:
            if row.name not in missing:
                try:
                    rows.append(self._kept(name, table, row) | {"task": _task(table, row)})
                except ModelError as error:
                    missing[row.name] = str(error)
        if not rows:
            none = f"{self.sheets} has no sheet of {name}; leave out --kept to run its rows"
            raise ModelError(next(filter(None, missing.values()), none))
        seeds = ", ".join(str(seed) for seed in sorted({seed for row in table.row for seed in row.seeds}))
        trained = f"Budget {self.budget or table.budget:,} pictures, seeds {seeds}; "
        about = trained if any(row.recipe for row in table.row) else ""
        about += f"{'; '.join(dict.fromkeys(row['made'] for row in rows))}; `{command}`."
        rows = [_with_intervals(row, rows) for row in rows]
        return Shown(table, rows, missing, about)

    def _kept(self, name: str, table: PaperTable, row: Row) -> dict[str, Any]:
        """Reads a row from its sheet, or runs it and leaves one. Raises ModelError for another's sheet.

        A sheet holds hashes of the weights that the row measured or started from, and of the split.
        """
        determining: dict[str, Any] = {"backbone": row.backbone, "rates": row.rates, "method": row.method}
        determining |= {"measure": merge(table.measure, row.measure)}
        if row.recipe:
            determining |= asdict(self._recipe(table, row)(1.0, row.seeds[0]))
        elif row.set:
            determining["set"] = row.set
        determining = json.loads(json.dumps(determining))
        sheet, hashes = self.sheets and self._sheet(name, table, row), self._hashes(row)
        if sheet and sheet.exists():
            kept: dict[str, dict[str, Any]] = json.loads(sheet.read_text())
            # A sheet may lack keys that recipes have had since.
            if merge(determining, kept["determining"]) != determining:
                raise ModelError(f"{sheet} is of another recipe or measure; remove it to run the row again")
            # What is not on this disk, such as the data, cannot have changed here.
            changed = [what for what, digest in hashes.items() if kept.get("hashes", {}).get(what) != digest]
            if changed:
                raise ModelError(f"{sheet} is of other {' and '.join(changed)}; remove it to run the row again")
            return kept["found"]
        found = self._row(name, table, row) | {"made": _describe_run(self.device)}
        if sheet:
            sheet.parent.mkdir(parents=True, exist_ok=True)
            with replacing(sheet) as partial:
                partial.write_text(json.dumps({"determining": determining, "hashes": hashes, "found": found}) + "\n")
        return found

    def _hashes(self, row: Row) -> dict[str, str]:
        """Returns the SHA-256 of the weights of a row and of the split, of those that are on this disk."""
        files = dict[str, Path]()
        with suppress(ModelError):
            files["weights"] = Path(self._weights(row))
            if not self.data:
                files["split"] = data_folder() / "data" / "split.json"
        return {name: file_sha256(path) for name, path in files.items() if path.is_file()}

    def _weights(self, row: Row) -> str:
        """Names the weights that a row measures or starts from, a file or a timm tag. Raises ModelError."""
        shipped = PHOTO_SIDE.with_name(f"{row.checkpoint or row.backbone}.safetensors")
        if self.backbone and not row.checkpoint:
            return self.backbone
        return str(shipped if row.checkpoint or shipped.is_file() else data_folder() / "data" / row.backbone)

    def _sheet(self, name: str, table: PaperTable, row: Row) -> Path:
        return (self.sheets or Path()) / f"{name}-{self.budget or table.budget}-{_slug(row)}.json"

    def _recipe(self, table: PaperTable, row: Row) -> Callable[[float, int], AnyRecipe]:
        """Returns the recipe of a row by factor of its rates and by seed."""
        budget = (self.budget or table.budget) if row.budget is None else row.budget
        recipe, changes = Path(row.recipe), merge(table.set, row.set)
        return lambda rate, seed: read_within_budget(recipe, changes | {"seed": seed}, budget, rate)

    def _row(self, name: str, table: PaperTable, row: Row) -> dict[str, Any]:
        """Trains a row at each of its rates, and measures the one that ends best on the validation classes."""
        if row.checkpoint:
            return self._measure(table, row, Path(self._weights(row))) | {
                "network": row.name,
                "validation": {},
                "curve": [],
            }
        read = self._recipe(table, row)

        def trained(rate: float, seed: int) -> tuple[AnyRecipe, Path, float | None]:
            recipe, folder = read(rate, seed), self.folder / name / f"{_slug(row)}-{rate:g}-{seed}"
            return recipe, folder, self._train(row, recipe, folder)

        ended = {rate: trained(rate, row.seeds[0])[2] for rate in row.rates}
        best = max(row.rates, key=lambda rate: ended[rate] or -1)
        runs = [trained(best, seed) for seed in row.seeds]
        if any(figure is None for *_, figure in runs):
            raise ModelError("it diverged at every rate of the table; lower them")
        found = [self._measure(table, row, folder / "final.safetensors") for _, folder, _ in runs]
        mean = {name: np.mean([one["per_query"][name] for one in found], axis=0) for name in table.columns}
        by_method = {way: np.mean([one["by_method"][way] for one in found], axis=0) for way in found[0]["by_method"]}
        recipe, folder, _ = runs[0]
        log = list(map(json.loads, (folder / "log.jsonl").read_text().splitlines()))
        curve = [(e["step"], [value for name, value in e.items() if name.startswith("val_")]) for e in log]
        return found[0] | {
            "network": row.name,
            "pictures": 0 if row.budget == 0 else recipe.steps * recipe.pictures,
            "steps": 0 if row.budget == 0 else recipe.steps,
            "validation": {f"{rate:g}": figure for rate, figure in ended.items()},
            "curve": [(step * recipe.pictures, max(values)) for step, values in curve if values],
            "per_query": {name: np.round(values, 6).tolist() for name, values in mean.items()},
            "by_method": {way: np.round(values, 6).tolist() for way, values in by_method.items()},
        }

    def _train(self, row: Row, recipe: AnyRecipe, folder: Path) -> float | None:
        """Trains in a folder, unless that was done before; returns the mAP@all on validation, None if it diverged."""
        backbone = self._weights(row)
        start = file_sha256(Path(backbone)) if Path(backbone).is_file() else backbone
        device = find_device(self.device)
        diverged, checkpoint, note = folder / "diverged", folder / "final.safetensors", folder / "recipe.json"
        trained = json.dumps([asdict(recipe), start, str(self.data), str(self.words), device.type], default=str)
        if note.exists() and note.read_text() != trained:
            raise ModelError(f"{folder} keeps a training by another recipe; remove it, or name another with --runs")
        if not diverged.exists() and not checkpoint.exists():
            if (folder / "state.safetensors").exists() and not self.resume:
                raise ModelError(f"the training in {folder} was stopped; --resume continues it")
            folder.mkdir(parents=True, exist_ok=True)
            note.write_text(trained)
            run = Run(Path(recipe.title), backbone, folder, checkpoint, self.data, words=self.words, device=device)
            try:
                with redirect_stdout(sys.stderr):
                    TRAININGS[type(recipe)](recipe, run)
            except Diverged as error:
                with replacing(diverged) as partial:
                    partial.write_text(str(error))
        if diverged.exists():
            print(f"{row.name}: {diverged.read_text()}", file=sys.stderr)
            return None
        figures = json.loads(read_metadata(checkpoint)["validation"])
        return max(float(value) for name, value in figures.items() if name in ("rn", "ret", "fused"))

    def task_of(self, where: Measure) -> Task:
        """Reads the task of a row."""
        task = read_task(where.protocol, None if self.data else where.split, data=self.data)
        task = task.subsample(*where.every)
        corpus = task.corpus
        if where.vectors:
            corpus = answerable(Corpus(corpus.sketches, tuple(read_clip_vectors(data_folder(), corpus.photos))))
        if where.each:
            corpus = Corpus(some_of_each(corpus.sketches, where.each), corpus.photos)
        return replace(task, corpus=corpus)

    def _vectors(self, where: Measure, photos: Sequence[Picture]) -> tuple[Floats | None, str]:
        """Returns CLIP's vectors of photos, None for [Ret]; and what makes clusters, unless the row says it."""
        if where.by == "ret":
            return None, ""
        if where.vectors:
            known = read_clip_vectors(data_folder(), photos)
            return np.stack([known[photo] for photo in photos]), ""
        vectors, why = clip_vectors(photos, where.clip)
        return vectors, f"clusters are by {'[Ret]: ' if vectors is None else ''}{why}"

    def _measure(self, table: PaperTable, row: Row, checkpoint: Path) -> dict[str, Any]:
        """Measures a network, in float32, so that all machines find the same."""
        where = TypeAdapter(Measure).validate_python(merge(table.measure, row.measure))
        task, about = self.task_of(where), list[str]()
        matcher, network = load(checkpoint, dtype="float32", variants=1), load_network(checkpoint)
        if row.checkpoint and row.set:
            network = network.with_config(**row.set["network"])
            matcher = trained_matcher(network)
        method = "ret" if task.protocol == "within" else row.method or matcher.best_method
        if where.clusters:
            method = "rn"
        costs = costs_of(network) if table.costs else {}
        if where.clusters:
            # Rows that differ in clusters and nprobe alone share their tokens, which are the slowest part.
            if (key := f"{checkpoint} {_task(table, row)}") not in self.tokens:
                self.tokens[key] = encode_both(matcher, task.corpus)
            if (by := f"{key} {where.by}") not in self.vectors:
                self.vectors[by] = self._vectors(where, task.corpus.photos)
            tokens, (vectors, why) = self.tokens[key], self.vectors[by]
            about = [*filter(None, [why]), _FORMULAS]
            vectors = tokens[1].ret if vectors is None else vectors
            clusters = where.clusters, where.nprobe
            figures, more = search_in_two_stages(matcher, task.corpus, tokens, vectors, *clusters)
            costs |= more | {"clusters": float(where.clusters)}
            ways = {str(method): figures}
        else:
            evaluation = measure(task, task_matrices(matcher, task))
            ways, first = evaluation.per_query, table.columns[0]
            figures = evaluation.per_query[method]
            for group, means in evaluation.figures[method].items() if task.protocol == "within" else ():
                costs |= {f"{TITLES[first]}: {group}": means[first]} if group != ALL else {}
        if lacking := sorted(set(table.columns) - set(figures)):
            raise ModelError(f"{task.protocol} has no figure {', '.join(lacking)}, but {', '.join(figures)}")
        per_query = {name: np.round(figures[name], 6).tolist() for name in table.columns}
        return {
            "ranks by": method,
            "queries": len(per_query[table.columns[0]]),
            "photos": len(task.corpus.photos),
            "per_query": per_query,
            "by_method": {way: np.round(ways[way][table.columns[0]], 6).tolist() for way in ways},
            "costs": costs,
            # A table has no groups of queries.
            "about": about + [one for one in task.about if not one.startswith(tuple(task.groups))],
        }


def _slug(row: Row) -> str:
    return re.sub(r"\W+", "-", row.name.lower()).strip("-")


def _task(table: PaperTable, row: Row) -> str:
    """Names what a row measures: rows of the same start that differ in clusters alone have the same."""
    free = ("clusters", "nprobe", "by")
    measured = {key: value for key, value in merge(table.measure, row.measure).items() if key not in free}
    return repr([row.checkpoint or row.backbone, sorted(measured.items())])


def _with_intervals(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Replaces figures by 95% intervals, and compares with the first row of the same task and method."""
    first = next(one for one in rows if one["task"] == row["task"])
    values = np.stack(list(row["per_query"].values()), axis=1)
    figures = dict(zip(row["per_query"], map(asdict, bootstrap(values)), strict=True))
    bases = first.get("by_method", {}) | {first["ranks by"]: next(iter(first["per_query"].values()))}
    base = bases.get(row["ranks by"])
    less = asdict(bootstrap(values[:, :1] - np.array(base)[:, None])[0]) if base and row is not first else None
    kept = {name: row[name] for name in row if name not in ("per_query", "by_method")}
    return kept | {"figures": figures, "difference": less}


def _describe_run(device: str) -> str:
    """Returns the machine, the device of the training if it is another one, and the day of a row."""
    cpus = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.+)$", cpus.read_text() if cpus.exists() else "", re.MULTILINE)
    day = datetime.now(UTC).date().isoformat()
    trained = find_device(device)
    gpu = f"trained on {torch.cuda.get_device_name(trained)}, " if trained.type == "cuda" else ""
    return f"{[*names, platform.machine()][0]}, {torch.get_num_threads()} threads, {gpu}{day}"


def _interval(found: Mapping[str, float], form: str = ".3f") -> str:
    return f"{found['value']:{form}} ± {(found['high'] - found['low']) / 2:.3f}"


def write_block(page: Path, name: str, text: str) -> None:
    """Writes the text between the marks of a table in a page. Raises ModelError if the page lacks the marks."""
    begin, end = f"<!-- begin: table {name} -->\n", f"<!-- end: table {name} -->"
    before, mark, rest = page.read_text(encoding="utf-8").partition(begin)
    _, last, after = rest.partition(end)
    if not mark or not last:
        raise ModelError(f"{page} needs one {begin.strip()} and, after it, one {end}")
    with replacing(page) as partial:
        partial.write_text(f"{before}{begin}{text}\n{end}{after}", encoding="utf-8")
