"""Commands that train: train, words, photo-side."""

from __future__ import annotations

import argparse
from pathlib import Path

from model.papers import (
    AnchorRecipe,
    ClipAtRecipe,
    Run,
    TwoSidedRecipe,
    check_target,
    give_words,
    make_photo_side,
    read_recipe,
    train_anchors,
    train_clip_at,
    train_two_sided,
    train_zse,
)


def run_train(options: argparse.Namespace) -> None:
    """train RECIPE --backbone FILE|TIMM-TAG [--start FILE] [--run DIR] [--until STEP] [--out FILE] [--words FILE]"""
    folder = options.folder or Path("runs") / options.recipe.stem
    target = options.out or folder / "final.safetensors"
    run = Run(
        options.recipe, options.backbone, folder, target, options.data, options.start, options.until, options.words
    )
    # First what takes no time: preparing many pictures takes minutes, and a training hours.
    recipe = read_recipe(run.recipe)
    check_target(run.target, run.folder)
    if isinstance(recipe, AnchorRecipe):
        train_anchors(recipe, run, print)
    elif isinstance(recipe, ClipAtRecipe):
        train_clip_at(recipe, run, print)
    elif isinstance(recipe, TwoSidedRecipe):
        train_two_sided(recipe, run, print)
    else:
        train_zse(recipe, run, print)


def run_photo_side(options: argparse.Namespace) -> None:
    """photo-side ENCODER SECOND OUT.safetensors"""
    make_photo_side(options.encoder, options.second, options.target, print)


def run_words(options: argparse.Namespace) -> None:
    """words IN.safetensors --backbone FILE|TIMM-TAG [--recipe RECIPE] OUT.safetensors"""
    give_words(options.source, options.backbone, options.target, print, recipe=options.recipe, data=options.data)
