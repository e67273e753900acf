"""One measurement as the command line asks for it: from pictures and a network to figures, files and plots."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model.checkpoint import default_checkpoint, file_sha256
from model.datasets import Corpus, Layout, Protocol, read_task, thinned
from model.errors import ModelError
from model.evaluation.baselines import backbone_matcher, backbone_matrices
from model.evaluation.instances import InstanceEvaluation, measure_instances
from model.evaluation.keep_rates import KeepRates, sweep
from model.evaluation.per_query import against, differences, read_csv, write_csv
from model.evaluation.plots import draw_keep_rates, draw_precision_recall
from model.evaluation.report import (
    Comparisons,
    category_json,
    category_table,
    comparison_json,
    comparison_table,
    instance_json,
    instance_table,
    keep_json,
    keep_table,
)
from model.evaluation.resampling import RESAMPLED, Resampled
from model.evaluation.retrieval import Evaluation, measure, score_matrices
from model.matcher import Matcher, load
from model.metrics import recall_levels
from model.network import Method, read_backbone


@dataclass(frozen=True)
class Measurement:
    """What is to be measured, on what, and how it is told: the options of ``python -m model evaluate``.

    Attributes:
        weights: the checkpoint; None for the embedded one or, where ``backbone`` is named, for none.
        backbone: an untrained ViT, measured by itself or beside the checkpoint: a file or a timm tag.
        protocol, split, trained_on, data, layout: see ``model.datasets.tasks.read_task``.
        every: only every so many-th sketch and photo.
        method: None for all that the checkpoint has. visual: also by the mean visual token.
        device, dtype: where and in what precision; "auto" as ``model.load`` chooses.
        json: one JSON object instead of tables. intervals: what is resampled for them; None leaves them out.
        csv, against: where each query's figures go, and others' to compare with.
        keep: keep rates to sweep, with commas between. plot: a picture to draw.
    """

    weights: Path | str | None
    backbone: str | None
    protocol: Protocol
    split: str | None
    trained_on: str | None
    data: Path | None
    layout: Layout
    every: tuple[int, int] | None
    method: Sequence[Method] | None
    visual: bool
    device: str
    dtype: str
    json: bool
    intervals: Resampled | None
    csv: Path | None
    against: Path | None
    keep: str | None
    plot: Path | None


def perform(wanted: Measurement, say: Callable[[str], object]) -> None:
    """Measures, hands the figures to ``say`` and then writes the files asked for.

    Raises ModelError for what does not go together, ImageError and OSError for files that cannot be read or written.
    """
    task = read_task(wanted.protocol, wanted.split, wanted.trained_on, wanted.data, wanted.layout)
    corpus = thinned(task.corpus, *wanted.every) if wanted.every else task.corpus
    if wanted.keep:
        _sweep(wanted, wanted.keep, task.protocol, corpus, say)
        return
    if wanted.plot and task.protocol == "fine-grained":
        raise ModelError("precision over recall is drawn of the category protocols; leave out --plot")
    other = read_csv(wanted.against) if wanted.against else None
    matrices, measured = _scored(wanted, corpus)
    result: Evaluation | InstanceEvaluation
    if task.protocol == "fine-grained":
        result = measure_instances(corpus, matrices)
    else:
        result = measure(corpus, matrices, task.apart, curves=wanted.plot is not None)
    resampled = wanted.intervals or RESAMPLED[0]
    paired = against(result.each, other, resampled) if other else ()
    compared = Comparisons(resampled, differences(result.each, resampled), paired)
    if wanted.json:
        figures = category_json(result) if isinstance(result, Evaluation) else instance_json(result)
        about = {"protocol": task.protocol, "about": task.about}
        say(json.dumps(figures | measured | about | comparison_json(result.each, compared, task.apart)))
    else:
        say(category_table(result, task.apart) if isinstance(result, Evaluation) else instance_table(result))
        for sentence in task.about:
            say(f"\n{task.protocol}: {sentence}")
        if wanted.intervals or other:
            say("\n" + comparison_table(result.each, compared))
    if wanted.csv:
        write_csv(result.each, wanted.csv)
    if wanted.plot and isinstance(result, Evaluation):
        title = f"{measured['checkpoint']}, {task.protocol}"
        draw_precision_recall(recall_levels(), result.curves, title, wanted.plot)


def _sweep(wanted: Measurement, keep: str, protocol: Protocol, corpus: Corpus, say: Callable[[str], object]) -> None:
    others = ("csv", "against", "intervals", "backbone", "visual")
    if protocol == "fine-grained" or any(getattr(wanted, name) for name in others):
        raise ModelError(f"--keep is for category protocols and without {', '.join(f'--{name}' for name in others)}")
    path, matcher = _checkpoint(wanted)
    settings = [KeepRates.parse(text, matcher.config.keep_cross) for text in keep.split(",")]
    found = sweep(matcher, corpus, settings, wanted.method)
    say(json.dumps(keep_json(found) | _identity(path.name, matcher)) if wanted.json else keep_table(found))
    if wanted.plot:
        series = {m: [(row.costs.pair_macs / 1e6, row.methods[m].map_all) for row in found] for m in found[0].methods}
        draw_keep_rates(series, "million multiply-adds a pair", f"{path.name}, {protocol}", wanted.plot)


def _scored(wanted: Measurement, corpus: Corpus) -> tuple[dict[str, NDArray[np.floating]], dict[str, str]]:
    """Scores by method, and what scored them."""
    matrices: dict[str, NDArray[np.floating]] = {}
    measured = {}
    if wanted.weights or not wanted.backbone:
        path, matcher = _checkpoint(wanted)
        matrices |= score_matrices(matcher, corpus, wanted.method, visual=wanted.visual)
        measured = _identity(path.name, matcher)
    if wanted.backbone:
        weights = read_backbone(wanted.backbone)
        file = Path(wanted.backbone).expanduser()
        matcher = backbone_matcher(weights, file_sha256(file) if file.is_file() else "", wanted.device)
        matrices |= backbone_matrices(matcher, corpus)
        measured = measured or _identity(file.name, matcher)
    return matrices, measured


def _checkpoint(wanted: Measurement) -> tuple[Path, Matcher]:
    path = default_checkpoint(wanted.weights)
    matcher = load(path, wanted.device, None if wanted.dtype == "auto" else getattr(torch, wanted.dtype))
    unknown = [method for method in wanted.method or () if method not in matcher.methods]
    if unknown:
        raise ModelError(f"{path} cannot score by {unknown[0]!r}, only by {', '.join(matcher.methods)}")
    return path, matcher


def _identity(name: str, matcher: Matcher) -> dict[str, str]:
    dtype = str(matcher.dtype).removeprefix("torch.")
    return {"checkpoint": name, "checkpoint_sha256": matcher.checkpoint_sha256, "dtype": dtype}
