"""Figures of single queries: confidence intervals of their means, differences of methods, and a CSV file of them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.datasets import Picture
from model.errors import ModelError

# Resampled are single queries, or whole classes with all their queries. Queries of one class look for the same
# photos, so intervals over queries are too narrow for statements about other classes; those over classes hold for them.
Resampled = Literal["queries", "classes"]
RESAMPLED: tuple[Resampled, ...] = ("queries", "classes")
RESAMPLES = 2000
LEVEL = 0.95
_CHUNK_ELEMENTS = 1 << 22
_COLUMNS = ("query", "class", "source")


@dataclass(frozen=True)
class Interval:
    """A mean over queries, and the interval that holds LEVEL of its resamples."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PerQuery:
    """The figures of each query.

    Attributes:
        queries: the q sketches, identified by class, source and file name, whatever folder they are in.
        values: for each method and figure, (q,) float64.
    """

    queries: tuple[Picture, ...]
    values: dict[str, dict[str, NDArray[np.float64]]]


@dataclass(frozen=True)
class Difference:
    """The difference of a figure between the methods ``first`` and ``second``, over the same queries."""

    first: str
    second: str
    figure: str
    interval: Interval


def bootstrap(
    values: NDArray[np.float64], groups: Sequence[str] | None = None, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[Interval, ...]:
    """Percentile intervals of the means of the columns of ``values`` (q, m) over its q rows.

    Every column is resampled with the same rows, so the interval of a column of differences is that of paired
    differences. The same seed gives the same rows.

    Args:
        groups: a name for each row; groups are then drawn instead of rows, each with all its rows. None for rows.
        resamples: their number, at least 1.

    Raises:
        ValueError: there are no rows, or the groups do not fit them.
    """
    if values.ndim != 2 or not len(values) or (groups is not None and len(groups) != len(values)):
        raise ValueError(f"a bootstrap needs (rows, columns) and one group a row, not {values.shape}")
    numbers = np.arange(len(values)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    counts = np.bincount(numbers).astype(np.float64)
    sums = np.zeros((len(counts), values.shape[1]))
    np.add.at(sums, numbers, values)
    generator = np.random.default_rng(seed)
    share = np.full(len(counts), 1 / len(counts))
    means = np.empty((resamples, values.shape[1]))
    rows = max(1, _CHUNK_ELEMENTS // len(counts))
    for start in range(0, resamples, rows):
        part = means[start : start + rows]
        times = generator.multinomial(len(counts), share, size=len(part)).astype(np.float64)
        part[:] = times @ sums / (times @ counts)[:, None]
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return tuple(Interval(*map(float, row)) for row in zip(values.mean(axis=0), low, high, strict=True))


def intervals(measured: PerQuery, resampled: Resampled) -> dict[str, dict[str, Interval]]:
    """The interval of every figure of every method."""
    names = [(method, figure) for method, figures in measured.values.items() for figure in figures]
    columns = np.stack([measured.values[method][figure] for method, figure in names], axis=1)
    found: dict[str, dict[str, Interval]] = {method: {} for method in measured.values}
    for (method, figure), interval in zip(names, bootstrap(columns, _groups(measured, resampled)), strict=True):
        found[method][figure] = interval
    return found


def differences(measured: PerQuery, resampled: Resampled) -> tuple[Difference, ...]:
    """The differences between all methods; each pair of methods once."""
    methods = list(measured.values)
    pairs = [(first, second) for i, first in enumerate(methods) for second in methods[i + 1 :]]
    return _compared(measured, measured, pairs, resampled)


def against(measured: PerQuery, other: PerQuery, resampled: Resampled) -> tuple[Difference, ...]:
    """The differences between this evaluation's methods (``first``) and another's (``second``), over the same queries.

    Methods of the same name are compared; where no name is the same, every method with every other one.
    Raises ModelError where the queries are not the same.
    """
    rows = {_key(picture): row for row, picture in enumerate(other.queries)}
    keys = [_key(picture) for picture in measured.queries]
    if set(keys) != set(rows):
        raise ModelError(
            f"the queries are not the same: {len(set(keys) - set(rows))} of {len(keys)} are not among the other's "
            f"{len(rows)}; measure both with the same protocol and data"
        )
    order = np.array([rows[key] for key in keys])
    sorted_values = {m: {f: column[order] for f, column in figures.items()} for m, figures in other.values.items()}
    common = [(method, method) for method in measured.values if method in other.values]
    pairs = common or [(first, second) for first in measured.values for second in other.values]
    return _compared(measured, PerQuery(measured.queries, sorted_values), pairs, resampled)


def write_csv(measured: PerQuery, path: Path) -> None:
    """One line for each query: file, class, source, then a column METHOD.FIGURE for each figure of each method."""
    names = [(method, figure) for method, figures in measured.values.items() for figure in figures]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*_COLUMNS, *(f"{method}.{figure}" for method, figure in names)])
        for row, picture in enumerate(measured.queries):
            # repr keeps every digit, so that figures read back are the figures written.
            figures = [repr(float(measured.values[method][figure][row])) for method, figure in names]
            writer.writerow([str(picture.path), picture.label, picture.source, *figures])


def read_csv(path: Path) -> PerQuery:
    """Reads what `write_csv` wrote. Raises ModelError with file and line of what is wrong."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        names = [tuple(column.rsplit(".", 1)) for column in header[len(_COLUMNS) :]]
        if tuple(header[: len(_COLUMNS)]) != _COLUMNS or not names or any(len(name) != 2 for name in names):
            raise ModelError(f"{path}:1: no columns {', '.join(_COLUMNS)}, METHOD.FIGURE...; write it with --csv")
        queries, rows = [], []
        for line in reader:
            try:
                rows.append([float(value) for value in line[len(_COLUMNS) :]])
            except ValueError as error:
                raise ModelError(f"{path}:{reader.line_num}: {error}; write it anew with --csv") from error
            if len(line) != len(header):
                raise ModelError(f"{path}:{reader.line_num}: {len(line)} fields, not {len(header)}; write it anew")
            queries.append(Picture(Path(line[0]), line[1], line[2]))
    if not rows:
        raise ModelError(f"{path} holds no query; write it anew with --csv")
    values: dict[str, dict[str, NDArray[np.float64]]] = {}
    for (method, figure), column in zip(names, np.array(rows).T, strict=True):
        values.setdefault(method, {})[figure] = column
    return PerQuery(tuple(queries), values)


def _compared(
    first: PerQuery, second: PerQuery, pairs: Sequence[tuple[str, str]], resampled: Resampled
) -> tuple[Difference, ...]:
    names = [(a, b, figure) for a, b in pairs for figure in first.values[a] if figure in second.values[b]]
    if not names:
        return ()
    columns = np.stack([first.values[a][figure] - second.values[b][figure] for a, b, figure in names], axis=1)
    found = bootstrap(columns, _groups(first, resampled))
    return tuple(Difference(*name, interval) for name, interval in zip(names, found, strict=True))


def _groups(measured: PerQuery, resampled: Resampled) -> list[str] | None:
    return [picture.label for picture in measured.queries] if resampled == "classes" else None


def _key(picture: Picture) -> tuple[str, str, str]:
    return picture.source, picture.label, picture.path.name


def comparison_table(
    measured: PerQuery, resampled: Resampled, against: Sequence[Difference], titles: dict[str, str]
) -> str:
    """Intervals of all figures, then differences between methods, then those to another evaluation."""
    figures = list(next(iter(measured.values.values())))
    head = "".join(f"{titles.get(name, name):>28}" for name in figures)
    lines = [f"{LEVEL:.0%} intervals by {RESAMPLES} resamples of {resampled}", "", f"{'method':<34}{head}"]
    for method, row in intervals(measured, resampled).items():
        cells = (f"{i.value:.4f} [{i.low:.4f}, {i.high:.4f}]" for i in row.values())
        lines.append(f"{method:<34}" + "".join(f"{cell:>28}" for cell in cells))
    for title, found, mark in (
        ("differences, same queries", differences(measured, resampled), ""),
        ("differences to the other evaluation, same queries", against, " (other)"),
    ):
        lines += ["", title] if found else []
        for first, second in dict.fromkeys((d.first, d.second) for d in found):
            of_pair = {d.figure: d.interval for d in found if (d.first, d.second) == (first, second)}
            cells = (_signed(of_pair[name]) if name in of_pair else "" for name in figures)
            lines.append(f"{f'{first} - {second}{mark}':<34}" + "".join(f"{cell:>28}" for cell in cells))
    return "\n".join(lines)


def comparison_json(measured: PerQuery, resampled: Resampled, against: Sequence[Difference]) -> dict[str, object]:
    """The content of ``comparison_table``."""
    methods = {m: {f: asdict(i) for f, i in row.items()} for m, row in intervals(measured, resampled).items()}
    found = [
        [{"first": d.first, "second": d.second, "figure": d.figure, **asdict(d.interval)} for d in of]
        for of in (differences(measured, resampled), against)
    ]
    counts = {"level": LEVEL, "resamples": RESAMPLES, "resampled": resampled}
    return {"intervals": {**counts, "methods": methods}, "differences": found[0], "against": found[1]}


def _signed(interval: Interval) -> str:
    return f"{interval.value:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"
