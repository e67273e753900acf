"""Commands that train: train, words, photo-side."""

from __future__ import annotations

import argparse
from pathlib import Path

from model.papers import Run, give_words, make_photo_side, train


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
