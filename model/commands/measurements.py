"""Commands that measure a checkpoint, or CLIP beside it: evaluate, composites, guesses, folders."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json

import torch
from tqdm import tqdm

from model.checkpoint import default_checkpoint
from model.datasets import Corpus, read_class_folders, read_large_task, read_protocol, subsampled, write_folders
from model.errors import ModelError
from model.evaluation import (
    CHANCE,
    EvaluationRequest,
    guess_table,
    measure_composites,
    measure_guesses,
    run_evaluation,
)
from model.matcher import Matcher, load
from model.network import ClipAtConfig, clip_at_network_from, read_clip
from model.training import calibrated


def run_evaluate(options: argparse.Namespace) -> None:
    """evaluate [--weights FILE | --network clip:MODEL] [--protocol NAME] [--split NAME | --data DIR] [--json] ..."""
    given = {name: value for name, value in vars(options).items() if name not in ("command", "network")}
    request = EvaluationRequest(**given)
    baseline = None
    if options.network is not None:
        if options.weights is not None:
            raise ModelError("--network goes without --weights: name the one that is to be measured")
        # As for the networks that are trained here, diffusion is chosen on the validation classes, where they are.
        validation = None if options.data else subsampled(read_protocol("val"), 2, 2)
        baseline = clip_matcher(options.network, validation, options.device, options.variants or 1)
    run_evaluation(request, print, baseline)


def clip_matcher(network: str, validation: Corpus | None, device: str = "cpu", variants: int = 1) -> Matcher:
    """CLIP's own image vectors of sketches and photos, with nothing learned.

    Args:
        network: "clip:" and a CLIP, as for ``read_clip``.
        validation: the pictures on which the threshold of diffusion is chosen; None for no diffusion.
        variants: how often a sketch is encoded.

    Raises ModelError for any other name, and for a CLIP that cannot be had.
    """
    kind, _, source = network.partition(":")
    if kind != "clip" or not source:
        raise ModelError(f"--network {network} is unknown; name clip:MODEL, such as clip:ViT-B-32/laion2b_s34b_b79k")
    encoder = read_clip(source).encoder
    config = ClipAtConfig(
        name=network,
        vit=encoder.layout,
        image_size=encoder.image_size,
        prompts=0,
        mean=encoder.mean,
        std=encoder.std,
    )
    plain = clip_at_network_from(config, encoder.weights).requires_grad_(False).to(device).eval()
    if validation is not None:
        plain, _ = calibrated(plain, validation, methods=("ret",))
    digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in encoder.weights.values())).hexdigest()
    return Matcher(plain.to(device), digest, variants=variants)


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
