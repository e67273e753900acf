"""Defines two options that all commands share, and the lines of their reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sketch_search.indexer.store.location import default_index_path
from sketch_search.model.command_line import a_path, inherit, option
from sketch_search.model.terminal import printable

if TYPE_CHECKING:
    from sketch_search.indexer.building.builds import BuildReport
    from sketch_search.indexer.upkeep import RemovalReport

INDEX = option(
    "--index DIR",
    "Default: SBIR_INDEX, else your data folder.",
    a_path,
    default=inherit("index"),
    callback=lambda context, parameter, named: default_index_path() if named is None else named,
)
QUIET = option("--quiet", "Print errors only: no progress bar and no report.")


def show(lines: Sequence[str], quiet: bool = False) -> None:
    if lines and not quiet:
        print(*map(printable, lines), sep="\n", flush=True)


def state(report: BuildReport | RemovalReport, index: str = "") -> str:
    """Names the generation that is current after a build or a removal."""
    now = "now current" if report.changed else "unchanged"
    return line("index", f"{index}generation {report.generation}, {now}")


def count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def line(name: str, value: str) -> str:
    return f"{name + ':':<13}{value}"
