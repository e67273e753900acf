"""The command that trains and measures all methods in one table: compare."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping

from model.comparison import ComparisonRequest, compare, comparison_table, draw_comparison


def run_compare(options: argparse.Namespace) -> None:
    """compare --backbone FILE|TIMM-TAG [--methods NAME,...] [--budget PICTURES] [--image-size N] [--out DIR] ..."""

    def report(sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)

    request = ComparisonRequest(
        options.methods, options.backbone, options.out, options.budget, options.image_size, options.words
    )
    rows = compare(request, report)
    print(json.dumps([dataclasses.asdict(row) for row in rows]) if options.json else comparison_table(rows))
    draw_comparison(rows, options.out / "comparison.svg")


COMMANDS: Mapping[str, Callable[[argparse.Namespace], None]] = {"compare": run_compare}
