"""Commands that train: train, words, photo-side, compare."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from model.papers import ComparisonRequest, Run, compare, comparison_table, give_words, make_photo_side, train


def run_train(options: argparse.Namespace) -> None:
    """train RECIPE --backbone FILE|TIMM-TAG [--start FILE] [--run DIR] [--until STEP] [--out FILE] [--words FILE]"""
    folder = options.folder or Path("runs") / options.recipe.stem
    target = options.out or folder / "final.safetensors"
    run = Run(
        options.recipe, options.backbone, folder, target, options.data, options.start, options.until, options.words
    )
    train(run, print)


def run_photo_side(options: argparse.Namespace) -> None:
    """photo-side ENCODER SECOND OUT.safetensors"""
    make_photo_side(options.encoder, options.second, options.target, print)


def run_words(options: argparse.Namespace) -> None:
    """words IN.safetensors --backbone FILE|TIMM-TAG [--recipe RECIPE] OUT.safetensors"""
    give_words(options.source, options.backbone, options.target, print, recipe=options.recipe, data=options.data)


def run_compare(options: argparse.Namespace) -> None:
    """compare --backbone FILE|TIMM-TAG [--methods NAME,...] [--budget PICTURES] [--image-size PIXELS] [--out DIR]"""
    request = ComparisonRequest(
        options.methods, options.backbone, options.out, options.budget, options.image_size, options.words
    )
    rows = compare(request, lambda sentence: print(sentence, file=sys.stderr, flush=True))
    print(json.dumps([dataclasses.asdict(row) for row in rows]) if options.json else comparison_table(rows))
