"""The tables and plots of docs/figures.md, from what the benchmarks have measured; the last step of `make bench`.

Each part has a block of its name in that page. A part that was not measured stays as it is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tests.benchmarks import (
    growth,
    indexing,
    large,
    load_result,
    pen_up,
    plots,
    query_parts,
    scoring,
    sharded_result,
    tables,
    two_stage,
)
from tests.benchmarks.circumstances import BenchmarkResult
from tests.blocks import PageError, replace_blocks, rewrite_page


class ReportError(Exception):
    """A result that cannot be published; the message says which."""


@dataclass(frozen=True)
class Plot:
    """A picture beside the page.

    Attributes:
        name: of its file.
        shows: its caption.
        draw: writes it, from a part's result.
    """

    name: str
    shows: str
    draw: Callable[[Any, Path], None]


@dataclass(frozen=True)
class Part:
    """One block of the page.

    Attributes:
        name: of the block.
        document: the file with the result, of the type ``result``.
        markdown: makes its text from the result, without the plot and the line about circumstances.
    """

    name: str
    document: str
    result: type[BenchmarkResult]
    markdown: Callable[[Any], str]
    plot: Plot | None = None


PARTS = (
    Part("Scoring", "scoring.json", scoring.Result, tables.scores),
    Part(
        "Ways to choose photos",
        "two_stage.json",
        two_stage.Result,
        tables.ways,
        Plot("recall.svg", "Exhaustive results found, over time a query", plots.draw_recall),
    ),
    Part(
        "Growth",
        "growth.json",
        growth.Result,
        tables.grown,
        Plot("growth.svg", "Time a query over photos", plots.draw_growth),
    ),
    Part("Large galleries", "large.json", large.Result, tables.large_galleries),
    Part("Shards", "sharded.json", sharded_result.Result, tables.sharded),
    Part("Indexing", "indexing.json", indexing.Result, tables.indexed),
    Part("HTTP clients", "load.json", load_result.Result, tables.clients),
    Part("Overload", "load.json", load_result.Result, tables.overload),
    Part("Drawing", "pen_up.json", pen_up.Result, tables.drawing),
    Part("Parts of a query", "query_parts.json", query_parts.Result, tables.parts_of_queries),
)


def read(folder: Path, *, quick: bool) -> dict[str, BenchmarkResult]:
    """The results in ``folder`` by the name of their part; parts that were not measured are left out.

    ``quick``: whether results of quick runs are taken, too. Raises ReportError.
    """
    results: dict[str, BenchmarkResult] = {}
    for part in PARTS:
        path = folder / part.document
        if not path.exists():
            continue
        try:
            result = part.result.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise ReportError(f"{path} is not as this version writes it; measure it again ({error})") from error
        if not result.finished:
            raise ReportError(f"{path} is of a run that was stopped; measure it again")
        if result.circumstances.quick and not quick:
            raise ReportError(f"{path} is of a quick run, which proves nothing; measure it again without --quick")
        results[part.name] = result
    return results


def text(part: Part, result: BenchmarkResult, folder: Path | None) -> str:
    """The block of one part, with its plot where that lies in ``folder``."""
    lines = [part.markdown(result)]
    if folder is not None and part.plot is not None and (folder / part.plot.name).exists():
        lines.append(f"![{part.plot.shows}]({part.plot.name})")
    return "\n\n".join([*lines, tables.foot(result)])


def publish(page: Path, results: Mapping[str, BenchmarkResult]) -> None:
    """Rewrite the page's blocks, and draw the plots beside it; without matplotlib plots stay as they are.

    Raises PageError before anything is written.
    """
    # A page without a place for a result is found out before a plot is drawn.
    replace_blocks(page.read_text(encoding="utf-8"), dict.fromkeys(results, ""))
    try:
        for part in PARTS:
            if part.plot is not None and part.name in results:
                part.plot.draw(results[part.name], page.parent / part.plot.name)
    except ImportError:
        print("matplotlib is not installed; the plots are left as they are")
    rewrite_page(
        page, {part.name: text(part, results[part.name], page.parent) for part in PARTS if part.name in results}
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m tests.benchmarks.report", description=__doc__)
    made.add_argument("results", type=Path, metavar="DIR", help="the folder that the benchmarks wrote to")
    made.add_argument("--page", type=Path, metavar="FILE", help="rewrite this page instead of printing the tables")
    made.add_argument("--quick", action="store_true", help="take results of quick runs, too")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite the page, or print the tables; 2 with a sentence where a result or a mark is not as it should be."""
    options = parser().parse_args(arguments)
    try:
        results = read(options.results, quick=options.quick)
        if not results:
            raise ReportError(f"there is no result in {options.results}; run the benchmarks with --output there first")
        if options.page:
            publish(options.page, results)
    except (ReportError, PageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for part in PARTS:
        if part.name not in results:
            print(f"{part.name}: left as it is, there is no {options.results / part.document}")
        elif not options.page:
            print(f"{part.name}\n\n{text(part, results[part.name], None)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
