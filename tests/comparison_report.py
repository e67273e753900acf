"""The tables and the plot of docs/figures.md that `python -m model compare` measured."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from model.errors import ModelError
from model.papers import ComparisonRow, comparison_table, draw_comparison, finished_rows
from tests.blocks import PageError, rewrite_page

BLOCK = "Comparison"
PLOT = "comparison.svg"


def markdown(rows: Sequence[ComparisonRow]) -> str:
    """The tables, the plot beside the page, and what they were computed by."""
    threads = ", ".join(sorted({str(row.final.figures.threads) for row in rows}))
    return "\n".join(
        [
            comparison_table(rows),
            "",
            f"![mAP@all on validation classes over pictures seen, by each method at its best rate]({PLOT})",
            "",
            f"Threads: {threads}.",
        ]
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m tests.comparison_report", description=__doc__)
    made.add_argument("folder", type=Path, metavar="DIR", help="where the comparison has written its rows")
    made.add_argument("--page", type=Path, metavar="FILE", help="also put them into this page, and the plot beside it")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, and put them into the page; 2 with a sentence where that cannot be done."""
    options = parser().parse_args(arguments)
    try:
        rows = finished_rows(options.folder)
        text = markdown(rows)
        print(text)
        if options.page is not None:
            draw_comparison(rows, options.page.with_name(PLOT))
            rewrite_page(options.page, {BLOCK: text})
    except (OSError, ModelError, PageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
