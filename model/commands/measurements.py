"""Commands that measure a checkpoint: evaluate, composites, guesses, folders."""

from __future__ import annotations

import argparse
import dataclasses
import json

import torch
from tqdm import tqdm

from model.checkpoint import default_checkpoint
from model.datasets import read_class_folders, read_large_task, read_protocol, write_folders
from model.evaluation import (
    CHANCE,
    EvaluationRequest,
    guess_table,
    measure_composites,
    measure_guesses,
    run_evaluation,
)
from model.matcher import load


def run_evaluate(options: argparse.Namespace) -> None:
    """evaluate [--weights FILE] [--protocol NAME] [--split NAME | --data DIR] [--json] ..."""
    given = {name: value for name, value in vars(options).items() if name != "command"}
    run_evaluation(EvaluationRequest(**given), print)


def run_composites(options: argparse.Namespace) -> None:
    """composites [--weights FILE] [--split NAME | --data DIR] [--count N] [--seed N] [--json]"""
    matcher = load(default_checkpoint(options.weights), dtype=torch.float32)
    corpus = read_protocol(options.split) if options.data is None else read_class_folders(options.data)
    with tqdm(desc="explaining", unit="composite", total=options.count, disable=None) as bar:
        result = measure_composites(matcher, corpus, options.count, options.seed, lambda _: bar.update())
    if options.json:
        print(json.dumps(dataclasses.asdict(result)))
        return
    print(f"{result.composites} composites of {result.classes} classes; by chance {CHANCE:.3f}")
    for name, interval in (
        ("best matches in the right quarter", result.right),
        ("compared tokens in the right quarter", result.tokens),
        ("composites most matches of which are there", result.most),
    ):
        print(f"{name:<44}{interval.value:.3f}  (95%: {interval.low:.3f} to {interval.high:.3f})")


def run_guesses(options: argparse.Namespace) -> None:
    """guesses [--weights FILE] [--protocol NAME] [--split NAME] [--trained-on PARTS] [--variants N] [--json]"""
    matcher = load(default_checkpoint(options.weights), variants=options.variants)
    found = measure_guesses(matcher, read_large_task(options.protocol, options.split, options.trained_on))
    if options.json:
        print(json.dumps({name: dataclasses.asdict(row) for name, row in found.items()}))
    else:
        print(guess_table(found))


def run_folders(options: argparse.Namespace) -> None:
    """folders OUT [--split NAME] [--trained-on PARTS]"""
    task = read_large_task("everything", options.split, options.trained_on)
    write_folders(task, options.out)
    print(f"{len(task.corpus.photos):,} photos and {len(task.corpus.sketches):,} sketches are in {options.out}")
