"""Figures of single queries: written as CSV, and compared pair by pair."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.datasets import Picture
from model.errors import ModelError
from model.evaluation.resampling import Interval, Resampled, bootstrap

_COLUMNS = ("query", "class", "source")


@dataclass(frozen=True)
class PerQuery:
    """The figures of each query.

    Attributes:
        queries: the q sketches, identified by class, source and file name, whatever folder they are in.
        values: for each method and figure, (q,) float64.
    """

    queries: tuple[Picture, ...]
    values: dict[str, dict[str, NDArray[np.float64]]]

    @property
    def labels(self) -> list[str]:
        """The class of each query."""
        return [picture.label for picture in self.queries]

    def rows(self, chosen: NDArray[np.bool_]) -> PerQuery:
        """Only the queries that ``chosen`` (q,) marks."""
        return PerQuery(
            tuple(picture for picture, kept in zip(self.queries, chosen, strict=True) if kept),
            {m: {f: column[chosen] for f, column in figures.items()} for m, figures in self.values.items()},
        )


@dataclass(frozen=True)
class Difference:
    """How much higher a figure of the method ``first`` is than that of ``second``, over the same queries."""

    first: str
    second: str
    figure: str
    interval: Interval


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
    return measured.labels if resampled == "classes" else None


def _key(picture: Picture) -> tuple[str, str, str]:
    return picture.source, picture.label, picture.path.name
