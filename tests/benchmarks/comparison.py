"""The block Comparison of docs/figures.md and its plot, from what `python -m model compare` has measured."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from model.errors import ModelError
from model.papers import comparison_table, draw_comparison, finished_rows
from tests.benchmarks.results import ResultError, rewrite_page

PLOT = "comparison.svg"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m tests.benchmarks.comparison", description=__doc__)
    made.add_argument("folder", type=Path, metavar="DIR", help="where the comparison has written its rows")
    made.add_argument("--page", type=Path, metavar="FILE", help="also put them into this page, and the plot beside it")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, and put them into the page; 2 with a sentence where that cannot be done."""
    options = parser().parse_args(arguments)
    try:
        rows = finished_rows(options.folder)
        threads = ", ".join(sorted({str(row.final.figures.threads) for row in rows}))
        caption = "mAP@all on validation classes over pictures seen, by each method at its best rate"
        text = f"{comparison_table(rows)}\n\n![{caption}]({PLOT})\n\nThreads: {threads}."
        print(text)
        if options.page is not None:
            draw_comparison(rows, options.page.with_name(PLOT))
            rewrite_page(options.page, {"Comparison": text})
    except (OSError, ModelError, ResultError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
