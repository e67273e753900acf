"""The command that measures networks side by side: compare."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping

from model.errors import ModelError
from model.papers import (
    ComparisonRequest,
    ScoreboardRequest,
    compare,
    comparison_table,
    draw_comparison,
    score_checkpoints,
    scoreboard_table,
)


def run_compare(options: argparse.Namespace) -> None:
    """compare --backbone FILE|TIMM-TAG [--methods NAME,...] ..., or --checkpoint FILE --data DIR ..."""
    if options.checkpoint:
        _score(options)
    else:
        _train(options)


def _train(options: argparse.Namespace) -> None:
    if options.data or options.layout or options.every:
        raise ModelError(
            "--data, --layout and --every belong to --checkpoint; what is trained here is measured on the "
            "folder that SKETCH_SEARCH_DATA names"
        )
    request = ComparisonRequest(
        options.methods, options.backbone, options.out, options.budget, options.image_size, options.words
    )
    rows = compare(request, _report)
    print(json.dumps([dataclasses.asdict(row) for row in rows]) if options.json else comparison_table(rows))
    draw_comparison(rows, options.out / "comparison.svg")


def _score(options: argparse.Namespace) -> None:
    if options.methods or options.words:
        raise ModelError("--methods and --words belong to --backbone, for networks that are trained")
    if not options.data:
        raise ModelError("--checkpoint needs --data DIR, such as a folder of file lists with --layout lists")
    request = ScoreboardRequest(
        tuple(options.checkpoint),
        tuple(options.data),
        options.layout or "folders",
        options.out,
        options.every or (1, 1),
        options.device,
    )
    rows = score_checkpoints(request, _report)
    print(json.dumps([dataclasses.asdict(row) for row in rows]) if options.json else scoreboard_table(rows))


def _report(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


COMMANDS: Mapping[str, Callable[[argparse.Namespace], None]] = {"compare": run_compare}
