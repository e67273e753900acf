"""Runs tables: each trains the networks that its file names, measures them, and prints them.

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
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError

import weights
from model.checkpoint import load_network
from model.datasets import Protocol, data_folder, read_task
from model.engine import file_sha256, read_metadata
from model.errors import ModelError
from model.evaluation import ALL, TITLES, bootstrap, costs_of, measure, search_in_two_stages, task_matrices
from model.matcher import load
from model.papers.recipe import RECIPES, AnyRecipe, Table, merged, read_recipe
from model.papers.runs import Diverged, Run
from model.papers.trainings import TRAININGS

TABLES = RECIPES / "tables"
PHOTO_SIDE = Path(weights.__file__).with_name("photo-side.safetensors")
# How often a training is saved, and measured on the validation classes.
MOMENTS = 5
Kind = TypeVar("Kind")


@dataclass(frozen=True, kw_only=True)
class Measure(Table):
    """What is measured; see ``read_task``, and ``search_in_two_stages`` for ``clusters`` and ``nprobe``."""

    protocol: Protocol = "zero-shot"
    split: str | None = None
    trained_on: str | None = None
    every: tuple[int, int] = (1, 1)
    clusters: int = 0
    nprobe: int = 1


@dataclass(frozen=True, kw_only=True)
class Row(Table):
    """A row of a table.

    Attributes:
        name: its title. recipe: its training; ``set`` overrides keys of it, ``measure`` those of the table.
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
    measure: dict[str, Any] = field(default_factory=dict)
    budget: int | None = None
    rates: tuple[float, ...] = (1.0,)
    seeds: tuple[int, ...] = (0,)
    method: Literal["rn", "ret", "fused"] | None = None


@dataclass(frozen=True, kw_only=True)
class PaperTable(Table):
    """A table of a paper.

    Attributes:
        title: what it shows. row: its rows; those with as many queries and photos as the first are compared with it.
        budget: pictures that each training sees. set: overrides keys of every recipe. measure: fields of ``Measure``.
        columns: names of figures. costs: whether parameters and multiply-adds are counted.
        plot: "rows" for the first figure of each row, "curve" for validation figures by pictures seen.
    """

    title: str
    row: tuple[Row, ...]
    budget: int = 8000
    set: dict[str, Any] = field(default_factory=dict)
    measure: dict[str, Any] = field(default_factory=dict)
    columns: tuple[str, ...] = ("map_all", "precision_100")
    costs: bool = False
    plot: Literal["rows", "curve"] = "rows"


@dataclass(frozen=True)
class Figures:
    """The figures of a trained network: of each query by name, (q,), and what it costs by title."""

    method: str
    queries: int
    photos: int
    per_query: Mapping[str, Sequence[float]]
    costs: Mapping[str, float]


@dataclass(frozen=True)
class Result:
    """A row that was run. seen: pictures. validation: its mAP@all at each rate, None if diverged. log: of the best."""

    row: Row
    seen: int
    validation: Mapping[float, float | None]
    log: Path
    figures: Figures


def read_table(name: str) -> PaperTable:
    """Reads a table by its name. Raises ModelError, with the known names, if there is none, or it cannot be used."""
    known = sorted(path.stem for path in TABLES.glob("*.toml"))
    if name not in known:
        raise ModelError(f"there is no table {name}; name one of {', '.join(known)}")
    try:
        return _typed(PaperTable, tomllib.loads((TABLES / f"{name}.toml").read_text(encoding="utf-8")))
    except (ValidationError, ValueError) as error:
        raise ModelError(f"the table {name} cannot be read: {error}") from error


def _typed(kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    return TypeAdapter(kind).validate_json(json.dumps(values), strict=True)


@dataclass(frozen=True)
class TableRun:
    """The options of ``python -m model table``, which ``run`` a table.

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

    def run(self, name: str, command: str) -> Shown:
        """Trains and measures the rows of a table; ``command`` is what is written below it.

        Raises ModelError for an unknown table or row, for data that is missing, for a training that was stopped and is
        not to go on, and for a row that diverges at all its rates.
        """
        table = read_table(name)
        known = [row.name for row in table.row]
        if unknown := sorted(set(self.rows) - set(known)):
            raise ModelError(f"{name} has no row {unknown[0]}; its rows are {', '.join(known)}")
        rows = [row for row in table.row if not self.rows or row.name in self.rows]
        results = [self._row(table, row) for row in rows]
        cpus = Path("/proc/cpuinfo")
        names = re.findall(r"^model name\s*: (.+)$", cpus.read_text() if cpus.exists() else "", re.MULTILINE)
        machine = f"{names[0] if names else platform.machine()}, {torch.get_num_threads()} threads"
        seeds = ", ".join(str(seed) for seed in sorted({seed for row in rows for seed in row.seeds}))
        about = f"Budget {self.budget or table.budget:,} pictures, seeds {seeds}; {machine}"
        about += f", {datetime.now(UTC).date().isoformat()}; `{command}`."
        return Shown(table, results, [row.name for row in table.row if row not in rows], about)

    def _row(self, table: PaperTable, row: Row) -> Result:
        """Trains a row at each of its rates, and measures the one that ends best on the validation classes."""
        validation: dict[float, float | None] = {}
        for rate in row.rates:
            try:
                validation[rate] = self._trained(row, self._recipe(table, row, rate, row.seeds[0]))[1]
            except Diverged as error:
                print(f"{row.name} at {rate:g} times its rates: {error}", file=sys.stderr)
                validation[rate] = None
        best, figure = max(validation.items(), key=lambda ended: -1 if ended[1] is None else ended[1])
        if figure is None:
            raise ModelError(f"{row.name} diverged at every rate of the table; lower them")
        recipes = [self._recipe(table, row, best, seed) for seed in row.seeds]
        folders = [self._trained(row, recipe)[0] for recipe in recipes]
        found = [self._measured(table, row, folder) for folder in folders]
        mean = {name: np.mean([one.per_query[name] for one in found], axis=0).tolist() for name in table.columns}
        seen = 0 if row.budget == 0 else recipes[0].steps * recipes[0].pictures
        return Result(row, seen, validation, folders[0] / "log.jsonl", dataclasses.replace(found[0], per_query=mean))

    def _recipe(self, table: PaperTable, row: Row, rate: float, seed: int) -> AnyRecipe:
        """Reads the recipe of a row, with as many steps as the budget has, and its learning rates times ``rate``."""
        changes = merged(table.set, row.set) | {"seed": seed}
        recipe = read_recipe(Path(row.recipe), changes)
        budget = (self.budget or table.budget) if row.budget is None else row.budget
        steps = max(1, budget // recipe.pictures)
        often, factor = max(1, steps // MOMENTS), rate if budget else 0.0
        values = dataclasses.asdict(recipe.optimiser)
        optimiser = {name: value * factor for name, value in values.items() if name.endswith("rate")}
        optimiser["warmup"] = min(recipe.optimiser.warmup, often)
        given = {"steps": steps, "evaluate_every": often, "save_every": often, "optimiser": optimiser}
        return read_recipe(Path(row.recipe), merged(changes, given))

    def _trained(self, row: Row, recipe: AnyRecipe) -> tuple[Path, float]:
        """Trains, unless it was trained before; returns the folder, and the best mAP@all on the validation classes."""
        backbone = self.backbone or str(data_folder() / "data" / row.backbone)
        backbone = str(PHOTO_SIDE) if row.backbone == "photo-side" else backbone
        start = file_sha256(Path(backbone)) if Path(backbone).is_file() else backbone
        key = hashlib.sha256(f"{recipe!r} {start} {self._data_key} {self.words}".encode()).hexdigest()
        folder = self.folder / key[:16]
        diverged, checkpoint = folder / "diverged", folder / "final.safetensors"
        if diverged.exists():
            raise Diverged(int(diverged.read_text()))
        if not checkpoint.exists():
            if (folder / "state.safetensors").exists() and not self.resume:
                raise ModelError(f"the training in {folder} was stopped; --resume continues it")
            folder.mkdir(parents=True, exist_ok=True)
            run = Run(Path(recipe.title), backbone, folder, checkpoint, self.data, words=self.words)
            try:
                with redirect_stdout(sys.stderr):
                    TRAININGS[type(recipe)](recipe, run)
            except Diverged as error:
                diverged.write_text(str(error.step))
                raise
        figures = json.loads(read_metadata(checkpoint)["validation"])
        return folder, max(float(value) for name, value in figures.items() if name in ("rn", "ret", "fused"))

    @cached_property
    def _data_key(self) -> str:
        """A digest of the names and sizes of all files of the data."""
        root = self.data or data_folder() / "data"
        files = sorted((str(path.relative_to(root)), path.stat().st_size) for path in root.rglob("*") if path.is_file())
        return hashlib.sha256(repr(files).encode()).hexdigest()

    def _measured(self, table: PaperTable, row: Row, folder: Path) -> Figures:
        """Measures a trained network once, and keeps what was found beside it."""
        where = _typed(Measure, merged(table.measure, row.measure))
        key = hashlib.sha256(f"{where} {row.method} {table.columns} {table.costs}".encode()).hexdigest()
        kept = folder / f"figures-{key[:16]}.json"
        if kept.exists():
            return _typed(Figures, json.loads(kept.read_text()))
        split = None if self.data else where.split
        task = read_task(where.protocol, split, where.trained_on, self.data).subsampled(*where.every)
        matcher = load(folder / "final.safetensors", variants=1)
        method = "ret" if task.protocol == "within" else row.method or matcher.best_method
        costs = costs_of(load_network(folder / "final.safetensors")) if table.costs else {}
        if where.clusters:
            per_query, more = search_in_two_stages(matcher, task.corpus, method, where.clusters, where.nprobe)
        else:
            evaluation = measure(task, task_matrices(matcher, task, [method]))
            per_query, more = evaluation.per_query[method], {}
            if task.protocol == "within":
                groups, first = evaluation.figures[method], table.columns[0]
                more = {f"{TITLES[first]}: {name}": of_group[first] for name, of_group in groups.items() if name != ALL}
        if lacking := set(table.columns) - set(per_query):
            raise ModelError(f"{task.protocol} has no figure {', '.join(sorted(lacking))}, but {', '.join(per_query)}")
        columns = {name: np.round(per_query[name], 6).tolist() for name in table.columns}
        queries = len(columns[table.columns[0]])
        found = Figures(method, queries, len(task.corpus.photos), columns, costs | more)
        kept.write_text(json.dumps(dataclasses.asdict(found)))
        return found


@dataclass(frozen=True)
class Shown:
    """A table that was run. missing: names of rows that were not asked for. about: below the table."""

    table: PaperTable
    results: Sequence[Result]
    missing: Sequence[str]
    about: str

    def rows(self) -> list[dict[str, Any]]:
        """Returns each row's values by column, with 95% intervals over queries; see ``bootstrap``."""
        first, found = self.results[0].figures, []
        base = np.array(first.per_query[self.table.columns[0]])
        for one in self.results:
            own, values = one.figures, np.array(list(one.figures.per_query.values())).T
            alike = (own.queries, own.photos) == (first.queries, first.photos)
            found.append(
                {"network": one.row.name, "ranks by": own.method, "pictures": one.seen}
                | {"queries": own.queries, "photos": own.photos}
                | {"validation": {f"{rate:g}": value for rate, value in one.validation.items()}}
                | {"figures": dict(zip(own.per_query, map(dataclasses.asdict, bootstrap(values)), strict=True))}
                | {"difference": dataclasses.asdict(bootstrap(values[:, :1] - base[:, None])[0]) if alike else None}
                | {"costs": own.costs}
            )
        return found

    def markdown(self) -> str:
        """Writes the table, and below it where, when and by which command it was made."""
        titles = [TITLES[name] for name in self.table.columns]
        fixed = ["network", "ranks by", "pictures", "queries", "photos"]
        head = [*fixed, "validation by factor of the rates", *titles, f"{titles[0]} less the first row"]
        lines = [[*head, *self.results[0].figures.costs]]
        lines.append(["---"] * len(lines[0]))
        for row in self.rows():
            ended = ", ".join(f"{k}: {'diverged' if v is None else f'{v:.3f}'}" for k, v in row["validation"].items())
            figures = [_interval(figure) for figure in row["figures"].values()]
            less = _interval(row["difference"], "+.3f") if row["difference"] else ""
            counts = [f"{value:,.3f}" if value else "" for value in row["costs"].values()]
            first = [row[name] if isinstance(row[name], str) else f"{row[name]:,}" for name in fixed]
            lines.append([*first, ended, *figures, less, *counts])
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        lacking = [f"Not run: {', '.join(self.missing)}."] if self.missing else []
        return "\n\n".join([f"{self.table.title}; 95% intervals over queries.", body, *lacking, self.about])

    def json(self) -> str:
        found = {"table": self.table.title, "about": self.about, "rows": self.rows(), "missing": list(self.missing)}
        return json.dumps(found)

    def plot(self, target: Path) -> None:
        """Draws the figure of the table to a file. Raises ModelError without matplotlib."""
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ModelError("plots need matplotlib: pip install matplotlib; the table needs none") from error
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.subplots()
        for place, (one, row) in enumerate(zip(self.results, self.rows(), strict=True)):
            if self.table.plot == "curve":
                log = [json.loads(line) for line in one.log.read_text().splitlines()]
                best = {e["step"]: [value for name, value in e.items() if name.startswith("val_")] for e in log}
                points = [(step * one.seen / len(log), max(values)) for step, values in best.items() if values]
                axes.plot(*zip(*points, strict=True), marker=".", label=one.row.name)
            else:
                first = row["figures"][self.table.columns[0]]
                spread = [[first["value"] - first["low"]], [first["high"] - first["value"]]]
                axes.errorbar(first["value"], place, xerr=spread, fmt="o", label=one.row.name)
        curve = self.table.plot == "curve"
        axes.set(xlabel="pictures seen" if curve else TITLES[self.table.columns[0]])
        axes.set(ylabel="mAP@all on validation classes" if curve else "rows, the last on top")
        axes.legend()
        figure.savefig(target)


def _interval(found: Mapping[str, float], form: str = ".3f") -> str:
    return f"{found['value']:{form}} ({found['low']:{form}} to {found['high']:{form}})"


def write_block(page: Path, name: str, text: str) -> None:
    """Writes the text between the marks of a table in a page. Raises ModelError if the page lacks the marks."""
    begin, end = f"<!-- begin: table {name} -->\n", f"<!-- end: table {name} -->"
    before, mark, rest = page.read_text(encoding="utf-8").partition(begin)
    _, last, after = rest.partition(end)
    if not mark or not last:
        raise ModelError(f"{page} needs one {begin.strip()} and, after it, one {end}")
    page.write_text(f"{before}{begin}{text}\n{end}{after}", encoding="utf-8")
