"""Runs tables: each trains the networks that its file names, measures them on the same queries, and prints them.

A table is a TOML file in recipes/tables. Trainings and figures are kept by the hash of all that determines them, so
that a table that was stopped, and another table with the same row, take what is there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import weights
from model.checkpoint import load_network
from model.datasets import Protocol, Task, data_folder, read_task
from model.engine import file_sha256, read_metadata
from model.errors import ModelError
from model.evaluation import ALL, TITLES, bootstrap, measure, task_matrices
from model.matcher import load
from model.network import Network, RetNetwork
from model.papers.recipe import RECIPES, AnyRecipe, Table, merged, read_recipe
from model.papers.runs import Diverged, Run
from model.papers.trainings import TRAININGS

TABLES = RECIPES / "tables"
PHOTO_SIDE = "photo-side"
FIGURES = ("map_all", "precision_100")


@dataclass(frozen=True, kw_only=True)
class Row(Table):
    """A method of a table.

    Attributes:
        name: its title. recipe: its training; ``set`` overrides keys of it.
        backbone: what it starts from: a file of the data folder, or "photo-side" for the default's.
        budget: pictures that its training sees; None for the table's, 0 for a network that is not trained.
        rates: factors of the recipe's learning rates; the one that ends best on the validation classes is measured.
        seeds: of the trainings; their figures are averaged query by query.
        method: of scoring; None for the network's best one.
    """

    name: str
    recipe: str
    backbone: str = "vit_tiny_patch16_224.safetensors"
    set: dict[str, Any] = field(default_factory=dict)
    budget: int | None = None
    rates: tuple[float, ...] = (1.0,)
    seeds: tuple[int, ...] = (0,)
    method: str | None = None


@dataclass(frozen=True, kw_only=True)
class PaperTable(Table):
    """A table of a paper.

    Attributes:
        title: what it shows. rows: its methods, the first of which the others are compared with.
        budget: pictures that each training sees. set: overrides keys of every recipe.
        protocol, split, trained_on, every: what is measured; see ``model.datasets.read_task``.
        columns: names of figures. costs: whether parameters and multiply-adds are counted.
        plot: "rows" for the first figure of each row, "curve" for validation figures by pictures seen.
    """

    title: str
    rows: tuple[Row, ...]
    budget: int = 8000
    set: dict[str, Any] = field(default_factory=dict)
    protocol: Protocol = "zero-shot"
    split: str | None = None
    trained_on: str | None = None
    every: tuple[int, int] = (1, 1)
    columns: tuple[str, ...] = FIGURES
    costs: bool = False
    plot: Literal["rows", "curve"] | None = None


@dataclass(frozen=True)
class TableRun:
    """The options of ``python -m model table``, less its name.

    Attributes:
        data: class folders; None for the data that SKETCH_SEARCH_DATA names. words: a file of word vectors.
        backbone: the ViT to start from, a file or a timm tag; None for that of the data folder.
        budget: pictures that each training sees; None for the table's. rows: names of rows; empty for all.
        folder: keeps all trainings. resume: whether trainings that were stopped go on.
    """

    data: Path | None = None
    words: Path | None = None
    backbone: str | None = None
    budget: int | None = None
    rows: tuple[str, ...] = ()
    folder: Path = Path("runs/tables")
    resume: bool = False


@dataclass(frozen=True)
class Training:
    """A training of a row, at one rate and seed, in the folder that keeps it."""

    recipe: AnyRecipe
    backbone: str
    folder: Path
    rate: float

    @property
    def checkpoint(self) -> Path:
        return self.folder / "final.safetensors"

    @property
    def seen(self) -> int:
        """The number of pictures that the network has seen in the end."""
        return self.recipe.steps * self.recipe.pictures if self.rate else 0

    @property
    def validation(self) -> float:
        """The best mAP@all on the validation classes, before diffusion."""
        figures = json.loads(read_metadata(self.checkpoint)["validation"])
        return max(float(value) for name, value in figures.items() if name in ("rn", "ret", "fused"))

    def finish(self, run: TableRun) -> None:
        """Trains, unless it was trained before. Raises ModelError if it was stopped and is not to go on, Diverged."""
        if self.checkpoint.exists():
            return
        diverged = self.folder / "diverged"
        if diverged.exists():
            raise Diverged(int(diverged.read_text()))
        if (self.folder / "state.safetensors").exists() and not run.resume:
            raise ModelError(f"the training in {self.folder} was stopped; --resume goes on with it")
        self.folder.mkdir(parents=True, exist_ok=True)
        options = Run(Path(self.recipe.title), self.backbone, self.folder, self.checkpoint, run.data, words=run.words)
        try:
            with redirect_stdout(sys.stderr):
                TRAININGS[type(self.recipe)](self.recipe, options)
        except Diverged as error:
            diverged.write_text(str(error.step))
            raise


@dataclass(frozen=True)
class Measured:
    """A row with its figures: of each query by name, (q,), and what it costs."""

    row: Row
    chosen: Training
    rates: Mapping[float, float | None]
    method: str
    per_query: dict[str, list[float]]
    costs: dict[str, float]


def read_table(name: str) -> PaperTable:
    """Reads a table by its name. Raises ModelError, with the known names, if there is none, or it cannot be used."""
    known = sorted(path.stem for path in TABLES.glob("*.toml"))
    if name not in known:
        raise ModelError(f"there is no table {name}; name one of {', '.join(known)}")
    try:
        content = tomllib.loads((TABLES / f"{name}.toml").read_text(encoding="utf-8"))
        return TypeAdapter(PaperTable).validate_json(json.dumps(content | {"rows": content.pop("row")}), strict=True)
    except (ValidationError, ValueError, KeyError) as error:
        raise ModelError(f"the table {name} cannot be read: {error}") from error


def training_of(table: PaperTable, row: Row, run: TableRun, rate: float, seed: int) -> Training:
    """Makes the training of a row: as many steps as the budget has, validation at five moments, rates by the factor."""
    changes = merged(table.set, row.set) | {"seed": seed}
    recipe = read_recipe(Path(row.recipe), changes)
    budget = (run.budget or table.budget) if row.budget is None else row.budget
    steps = max(1, budget // recipe.pictures)
    rates = {f.name: getattr(recipe.optimiser, f.name) for f in dataclasses.fields(recipe.optimiser)}
    factor = rate if budget else 0.0
    optimiser = {name: value * factor for name, value in rates.items() if name.endswith("rate")}
    optimiser["warmup"] = min(recipe.optimiser.warmup, max(1, steps // 5))
    often = max(1, steps // 5)
    given = {"steps": steps, "evaluate_every": often, "save_every": often, "optimiser": optimiser}
    recipe = read_recipe(Path(row.recipe), merged(changes, given))
    if row.backbone == PHOTO_SIDE:
        backbone = str(Path(weights.__file__).with_name("photo-side.safetensors"))
    else:
        backbone = run.backbone or str(data_folder() / "data" / row.backbone)
    start = file_sha256(Path(backbone)) if Path(backbone).is_file() else backbone
    key = hashlib.sha256(f"{recipe!r} {start} {_data_key(run.data)} {run.words}".encode()).hexdigest()
    return Training(recipe, backbone, run.folder / key[:16], factor)


def _data_key(data: Path | None) -> str:
    """Returns a digest of the names and sizes of all files of the data."""
    root = data or data_folder() / "data"
    files = sorted((str(path.relative_to(root)), path.stat().st_size) for path in root.rglob("*") if path.is_file())
    return hashlib.sha256(repr(files).encode()).hexdigest()


def run_row(table: PaperTable, row: Row, run: TableRun, task: Task) -> Measured:
    """Trains a row at each of its rates, and measures the one that ends best on the validation classes.

    A rate at which the training diverges has no figure. Raises ModelError if all do.
    """
    trainings = {rate: training_of(table, row, run, rate, row.seeds[0]) for rate in row.rates}
    ended: dict[float, float | None] = {}
    for rate, training in trainings.items():
        try:
            training.finish(run)
            ended[rate] = training.validation
        except Diverged as error:
            print(f"{row.name} at {rate:g} times its rates: {error}", file=sys.stderr)
            ended[rate] = None
    if not (values := {rate: value for rate, value in ended.items() if value is not None}):
        raise ModelError(f"{row.name} diverged at every rate of the table; lower them")
    best = max(values, key=lambda rate: values[rate])
    columns: list[dict[str, list[float]]] = []
    for seed in row.seeds:
        training = training_of(table, row, run, best, seed)
        training.finish(run)
        method, found, costs = _figures(training, row, table, task)
        columns.append(found)
    mean = {name: np.mean([one[name] for one in columns], axis=0).tolist() for name in table.columns}
    return Measured(row, trainings[best], ended, method, mean, costs)


def _figures(
    training: Training, row: Row, table: PaperTable, task: Task
) -> tuple[str, dict[str, list[float]], dict[str, float]]:
    """Measures a trained network once, and keeps what was found beside it."""
    pictures = [str(p.path) for p in (*task.corpus.sketches, *task.corpus.photos)]
    key = hashlib.sha256(f"{task.protocol} {row.method} {table.columns} {table.costs} {pictures}".encode()).hexdigest()
    kept = training.folder / f"figures-{key[:16]}.json"
    if not kept.exists():
        matcher = load(training.checkpoint, variants=1)
        method = "ret" if task.protocol == "within" else row.method or matcher.best_method
        if method not in matcher.methods:
            raise ModelError(f"{row.name} has no method {method}, but {', '.join(matcher.methods)}")
        matrices = task_matrices(matcher, task, [method])
        evaluation = measure(task, matrices)
        found = evaluation.per_query[method]
        if lacking := set(table.columns) - set(found):
            raise ModelError(f"{task.protocol} has no figure {', '.join(sorted(lacking))}, but {', '.join(found)}")
        figures = {name: np.round(found[name], 6).tolist() for name in table.columns}
        more = counted(load_network(training.checkpoint)) if table.costs else {}
        if task.protocol == "within":
            first = table.columns[0]
            of_groups = evaluation.figures[method].items()
            more |= {f"{TITLES[first]}: {name}": values[first] for name, values in of_groups if name != ALL}
        kept.write_text(json.dumps([method, figures, more]))
    method, figures, costs = json.loads(kept.read_text())
    return method, figures, costs


def counted(network: RetNetwork) -> dict[str, float]:
    """Counts parameters, and multiply-adds of a photo and of a pair by PyTorch's counter."""
    side = network.config.image_size
    blank = torch.zeros(1, 3, side, side)
    with sdpa_kernel(SDPBackend.MATH), torch.inference_mode():
        with FlopCounterMode(display=False) as of_photo:
            photo = network.encode(blank, "photo")
        of_pair = FlopCounterMode(display=False)
        if isinstance(network, Network):
            one, other = network.project(network.encode(blank, "sketch"), "sketch"), network.project(photo, "photo")
            with of_pair:
                network.relate(one, other)
    parameters = sum(tensor.numel() for tensor in network.parameters())
    flops = {"G a photo": of_photo.get_total_flops() / 2e9, "M a pair": of_pair.get_total_flops() / 2e6}
    return {"M parameters": parameters / 1e6, **flops}


@dataclass(frozen=True)
class Shown:
    """A table that was run.

    Attributes:
        command: the command line. queries, photos: how many were measured.
        rows: what was measured. missing: names of rows that were not asked for.
    """

    table: PaperTable
    command: str
    queries: int
    photos: int
    rows: Sequence[Measured]
    missing: Sequence[str]
    budget: int

    def cells(self) -> list[dict[str, Any]]:
        """Returns each row's values by column, with 95% intervals over queries; see ``bootstrap``."""
        first = np.array(list(self.rows[0].per_query.values())).T
        found = []
        for one in self.rows:
            values = np.array(list(one.per_query.values())).T
            figures = dict(zip(one.per_query, map(dataclasses.asdict, bootstrap(values)), strict=True))
            less = dataclasses.asdict(bootstrap(values[:, :1] - first[:, :1])[0])
            ended = {f"{rate:g}": value for rate, value in one.rates.items()}
            start = {"network": one.row.name, "ranks by": one.method, "pictures": one.chosen.seen, "validation": ended}
            found.append(start | {"figures": figures, "difference": less, "costs": one.costs})
        return found

    def markdown(self) -> str:
        """Writes the table, and below it what it was measured on, where, when and by which command."""
        titles = [TITLES[name] for name in self.table.columns]
        costs = list(self.rows[0].costs)
        less = f"{titles[0]} less the first row"
        lines = [["network", "ranks by", "pictures", "validation by factor of the rates", *titles, less, *costs]]
        lines.append(["---"] * len(lines[0]))
        for row in self.cells():
            ended = ", ".join(f"{k}: {'diverged' if v is None else f'{v:.3f}'}" for k, v in row["validation"].items())
            figures = [_interval(figure) for figure in row["figures"].values()]
            counts = [f"{value:,.3f}" if value else "" for value in row["costs"].values()]
            first = [row["network"], row["ranks by"], f"{row['pictures']:,}", ended]
            lines.append([*first, *figures, _interval(row["difference"], "+.3f"), *counts])
        asked = f"{self.queries:,} queries, {self.photos:,} photos; 95% intervals over queries"
        seeds = sorted({seed for one in self.rows for seed in one.row.seeds})
        made = f"Budget {self.budget:,} pictures, seeds {', '.join(map(str, seeds))}; {_machine()}; `{self.command}`"
        lacking = [f"Not run: {', '.join(self.missing)}."] if self.missing else []
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return "\n\n".join([f"{self.table.title}: {asked}.", body, *lacking, f"{made}."])

    def json(self) -> str:
        return json.dumps(
            {
                "table": self.table.title,
                "command": self.command,
                "machine": _machine(),
                "budget": self.budget,
                "queries": self.queries,
                "photos": self.photos,
                "rows": self.cells(),
                "missing": list(self.missing),
            }
        )

    def plot(self, target: Path) -> None:
        """Draws the figure of the table to a file. Raises ModelError if it has none, or without matplotlib."""
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ModelError("plots need matplotlib: pip install matplotlib; the table needs none") from error
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.subplots()
        if self.table.plot == "curve":
            for one in self.rows:
                log = [json.loads(line) for line in (one.chosen.folder / "log.jsonl").read_text().splitlines()]
                points = [
                    (e["step"] * one.chosen.recipe.pictures, v)
                    for e in log
                    for v in [max((v for n, v in e.items() if n.startswith("val_")), default=None)]
                    if v
                ]
                axes.plot(*zip(*points, strict=True), marker=".", label=one.row.name)
            axes.set(xlabel="pictures seen", ylabel="mAP@all on validation classes")
            axes.legend()
        else:
            for place, row in enumerate(self.cells()):
                first = next(iter(row["figures"].values()))
                spread = [[first["value"] - first["low"]], [first["high"] - first["value"]]]
                axes.errorbar(first["value"], place, xerr=spread, fmt="o", color="tab:blue")
            axes.set_yticks(range(len(self.rows)), [one.row.name for one in self.rows])
            axes.set(xlabel=TITLES[self.table.columns[0]])
            axes.invert_yaxis()
        figure.savefig(target)


def _interval(found: Mapping[str, float], form: str = ".3f") -> str:
    return f"{found['value']:{form}} ({found['low']:{form}} to {found['high']:{form}})"


def _machine() -> str:
    cpus = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.+)$", cpus.read_text() if cpus.exists() else "", re.MULTILINE)
    day = datetime.now(UTC).date().isoformat()
    return f"{names[0] if names else platform.machine()}, {torch.get_num_threads()} threads, {day}"


def run_table(name: str, run: TableRun, command: str) -> Shown:
    """Trains and measures the rows of a table; ``command`` is what is written below it.

    Raises ModelError for an unknown table or row, for data that is missing, and for a training that was stopped, and is
    not to go on.
    """
    table = read_table(name)
    known = [row.name for row in table.rows]
    if unknown := sorted(set(run.rows) - set(known)):
        raise ModelError(f"{name} has no row {unknown[0]}; its rows are {', '.join(known)}")
    split = None if run.data else table.split
    task = read_task(table.protocol, split, table.trained_on, run.data).subsampled(*table.every)
    rows = [row for row in table.rows if not run.rows or row.name in run.rows]
    measured = [run_row(table, row, run, task) for row in rows]
    missing = [row.name for row in table.rows if row not in rows]
    queries = len(next(iter(measured[0].per_query.values())))
    budget = run.budget or table.budget
    return Shown(table, command, queries, len(task.corpus.photos), measured, missing, budget)


def write_block(page: Path, name: str, text: str) -> None:
    """Writes the text between the marks of a table in a page. Raises ModelError if the page lacks the marks."""
    marks = re.compile(
        rf"(<!-- begin: table {re.escape(name)} -->\n).*?(<!-- end: table {re.escape(name)} -->)", re.DOTALL
    )
    found, count = marks.subn(lambda block: f"{block[1]}{text}\n{block[2]}", page.read_text(encoding="utf-8"))
    if count != 1:
        raise ModelError(f"{page} needs one <!-- begin: table {name} --> and, after it, one <!-- end: table {name} -->")
    page.write_text(found, encoding="utf-8")
