"""The README's tables and plots, of what the benchmarks have measured; the end of `make bench`.

The README has a pair of comments for every part, ``<!-- bench: NAME -->`` and ``<!-- end -->``; what is between them is
this command's. A part that was not measured stays as it is.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from indexer.store.files import write_atomically
from tests.benchmarks import growth, indexing, load_result, pen_up, plots, scoring, tables, two_stage
from tests.benchmarks.circumstances import Measurement

MARKER = re.compile(r"^<!-- (?:bench: (?P<name>.+)|end) -->$", re.MULTILINE)


class ReportError(Exception):
    """A result that cannot be published, or a README without a place for it; the message says which."""


@dataclass(frozen=True)
class Plot:
    """A picture in the README's folder ``docs``, what it shows, and how it is drawn."""

    name: str
    shows: str
    draw: Callable[[Any, Path], None]


@dataclass(frozen=True)
class Part:
    """One part of the README.

    Attributes:
        name: in its marker. document: the file with the result, of the type ``result``.
        markdown: makes the text of it, without the plot and the line about circumstances.
    """

    name: str
    document: str
    result: type[Measurement]
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
    Part("Indexing", "indexing.json", indexing.Result, tables.indexed),
    Part("HTTP clients", "load.json", load_result.Result, tables.clients),
    Part("Overload", "load.json", load_result.Result, tables.overload),
    Part("Drawing", "pen_up.json", pen_up.Result, tables.drawing),
)


def read(folder: Path, *, quick: bool) -> dict[str, Measurement]:
    """By part, its result; those that were not measured left out.

    ``quick``: whether results of quick runs will do. Raises ReportError.
    """
    results: dict[str, Measurement] = {}
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


def text(part: Part, result: Measurement, docs: Path | None) -> str:
    """Of one part; its plot where it is there, in ``docs``."""
    lines = [part.markdown(result)]
    if docs is not None and part.plot is not None and (docs / part.plot.name).exists():
        lines.append(f"![{part.plot.shows}]({docs.name}/{part.plot.name})")
    return "\n\n".join([*lines, tables.foot(result)])


def rewritten(readme: str, texts: Mapping[str, str]) -> str:
    """``readme`` with these texts between the markers of their names, all else as it was.

    Raises ReportError where the markers of PARTS are not each there once, with an end.
    """
    marks = list(MARKER.finditer(readme))
    names = [mark["name"] for mark in marks if mark["name"]]
    for part in PARTS:
        if names.count(part.name) != 1:
            raise ReportError(f"the README has {names.count(part.name)} markers <!-- bench: {part.name} -->, not one")
    for name in set(names) - {part.name for part in PARTS}:
        raise ReportError(f"the README has a marker <!-- bench: {name} -->, but no benchmark of that name")
    if [bool(mark["name"]) for mark in marks] != [True, False] * len(PARTS):
        raise ReportError("the README's markers <!-- bench: NAME --> and <!-- end --> do not take turns")
    # From the last to the first, so that those in front stay where they are.
    for start, end in reversed(list(zip(marks[::2], marks[1::2], strict=True))):
        if start["name"] in texts:
            readme = f"{readme[: start.end()]}\n{texts[start['name']]}\n{readme[end.start() :]}"
    return readme


def publish(readme: Path, results: Mapping[str, Measurement]) -> None:
    """Rewrite the README, and draw the plots beside it, which stay as they are without matplotlib.

    Raises ReportError before anything is written.
    """
    docs = readme.parent / "docs"
    before = readme.read_text(encoding="utf-8")
    rewritten(before, {})
    drawn = [(part, part.plot) for part in PARTS if part.plot is not None and part.name in results]
    docs.mkdir(exist_ok=True)
    try:
        for part, plot in drawn:
            plot.draw(results[part.name], docs / plot.name)
    except ImportError:
        print("matplotlib is not installed; the plots are left as they are")
    texts = {part.name: text(part, results[part.name], docs) for part in PARTS if part.name in results}
    write_atomically(readme, rewritten(before, texts).encode())


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite the README, or print the tables; 2 with a sentence where a result or a marker is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.report", description=__doc__)
    parser.add_argument("results", type=Path, metavar="DIR", help="the folder that the benchmarks wrote to")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="rewrite this file instead of printing the tables")
    parser.add_argument("--quick", action="store_true", help="take results of quick runs, too")
    options = parser.parse_args(arguments)
    try:
        results = read(options.results, quick=options.quick)
        if not results:
            raise ReportError(f"there is no result in {options.results}; run the benchmarks with --output there first")
        if options.readme:
            publish(options.readme, results)
    except ReportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for part in PARTS:
        if part.name not in results:
            print(f"{part.name}: left as it is, there is no {options.results / part.document}")
        elif not options.readme:
            print(f"{part.name}\n\n{text(part, results[part.name], None)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
