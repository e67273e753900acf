"""One whole evaluation: from a request, through pictures and networks, to figures, files and plots."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model.checkpoint import default_checkpoint, file_sha256
from model.datasets import (
    LARGE_PROTOCOLS,
    Corpus,
    GroupedTask,
    Layout,
    Protocol,
    Task,
    answerable,
    read_large_task,
    read_task,
    subsampled,
)
from model.errors import ModelError
from model.evaluation.baselines import backbone_matcher, backbone_matrices
from model.evaluation.categories import CategoryEvaluation, measure
from model.evaluation.groups import group_json, group_table, measure_groups
from model.evaluation.instances import InstanceEvaluation, measure_instances
from model.evaluation.keep_rates import KeepRates, sweep
from model.evaluation.per_query import against, differences, read_csv, write_csv
from model.evaluation.plots import draw_lines
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
from model.evaluation.scoring import check_classes, score_matrices
from model.matcher import Matcher, load
from model.metrics import recall_levels
from model.network import Method, as_zse, read_backbone
from model.terminal import expanded


@dataclass(frozen=True)
class EvaluationRequest:
    """What is measured, on which pictures, and what comes out: the options of ``python -m model evaluate``.

    Attributes:
        weights: the checkpoint; None for the embedded one or, where ``backbone`` is given, for none.
        backbone: an untrained ViT that is measured, by itself or beside the checkpoint: a file or a timm tag.
        protocol, split, trained_on, data, layout: as for ``model.datasets.read_task``.
        by_class: print the figures of each class by itself, of its first results and of the whole ranking.
        every: (n, m) takes every n-th sketch and every m-th photo; None takes all.
        methods: None for all that the checkpoint has.
        visual: whether to score by the mean visual token, too.
        words: whether to search by the words of the classes, too; for protocols of large galleries.
        device, dtype: where to compute and in which precision; dtype "auto" leaves the choice to ``model.load``.
        json: print one JSON object instead of tables.
        intervals: what the confidence intervals are resampled over; None for no intervals.
        csv: a file to write each query's figures to; None for none.
        against: such a file of another evaluation, to compare with; None for none.
        keep: keep rates to compare, separated by commas; None for those of the checkpoint.
        variants: how often a sketch is encoded, as for ``model.load``.
        plot: an image file to draw a plot to; None for none.
    """

    weights: Path | str | None
    backbone: str | None
    protocol: Protocol
    split: str | None
    trained_on: str | None
    data: Path | None
    layout: Layout
    by_class: bool
    every: tuple[int, int] | None
    methods: Sequence[Method] | None
    visual: bool
    words: bool
    device: str
    dtype: str
    json: bool
    intervals: Resampled | None
    csv: Path | None
    against: Path | None
    keep: str | None
    variants: int
    plot: Path | None


def run_evaluation(request: EvaluationRequest, report: Callable[[str], object]) -> None:
    """Measures, passes the figures as text to ``report``, then writes the requested files.

    Raises ModelError for options that contradict each other, ImageError and OSError for files that cannot be read or
    written.
    """
    if request.protocol in LARGE_PROTOCOLS:
        _run_large(request, report)
        return
    if request.words:
        raise ModelError(f"--words is for --protocol {', '.join(LARGE_PROTOCOLS)}")
    if request.by_class and (_compares(request) or request.protocol == "fine-grained"):
        raise ModelError("--by-class is for category protocols and without --keep, --plot, --against, --intervals")
    task = read_task(request.protocol, request.split, request.trained_on, request.data, request.layout)
    corpus = subsampled(task.corpus, *request.every) if request.every else task.corpus
    if request.by_class:
        _run_by_class(request, task, corpus, report)
        return
    if request.keep:
        _sweep(request, request.keep, task.protocol, corpus, report)
        return
    if request.plot and task.protocol == "fine-grained":
        raise ModelError("precision over recall is drawn of the category protocols; leave out --plot")
    other = read_csv(request.against) if request.against else None
    matrices, measured = _scored(request, corpus)
    result: CategoryEvaluation | InstanceEvaluation
    if task.protocol == "fine-grained":
        result = measure_instances(corpus, matrices)
    else:
        result = measure(corpus, matrices, task.subset, curves=request.plot is not None)
    resampled = request.intervals or RESAMPLED[0]
    paired = against(result.per_query, other, resampled) if other else ()
    compared = Comparisons(resampled, differences(result.per_query, resampled), paired)
    if request.json:
        figures = category_json(result) if isinstance(result, CategoryEvaluation) else instance_json(result)
        about = {"protocol": task.protocol, "about": task.about}
        report(json.dumps(figures | measured | about | comparison_json(result.per_query, compared, task.subset)))
    else:
        report(
            category_table(result, task.subset) if isinstance(result, CategoryEvaluation) else instance_table(result)
        )
        for sentence in task.about:
            report(f"\n{task.protocol}: {sentence}")
        if request.intervals or other:
            report("\n" + comparison_table(result.per_query, compared))
    if request.csv:
        write_csv(result.per_query, request.csv)
    if request.plot and isinstance(result, CategoryEvaluation):
        title = f"{measured['checkpoint']}, {task.protocol}"
        series = {m: list(zip(recall_levels(), values, strict=True)) for m, values in result.curves.items()}
        axes = "recall", "precision, interpolated"
        draw_lines(series, *axes, request.plot, title=title, marker="", bottom=0, top=1)


def _run_large(request: EvaluationRequest, report: Callable[[str], object]) -> None:
    """The protocols of large galleries: figures of groups of queries."""
    if _compares(request) or request.data or request.backbone or request.by_class:
        raise ModelError(
            f"--protocol {request.protocol} goes without --keep, --plot, --data, --backbone, --against, --intervals, "
            "--by-class"
        )
    task = read_large_task(request.protocol, request.split, request.trained_on)
    if request.every:
        task = task.subsampled(*request.every)
    _report_groups(request, task, report)


def _run_by_class(request: EvaluationRequest, task: Task, corpus: Corpus, report: Callable[[str], object]) -> None:
    """Every class is a group of queries by itself."""
    check_classes(corpus)
    asked = answerable(corpus)
    labels = sorted({sketch.label for sketch in asked.sketches})
    _report_groups(request, GroupedTask(asked, {label: frozenset({label}) for label in labels}), report)
    for sentence in () if request.json else task.about:
        report(f"\n{task.protocol}: {sentence}")


def _compares(request: EvaluationRequest) -> bool:
    """Whether more is asked for than one table of figures."""
    return bool(request.keep or request.plot or request.against or request.intervals)


def _report_groups(request: EvaluationRequest, task: GroupedTask, report: Callable[[str], object]) -> None:
    matrices, measured = _scored(request, task.corpus)
    result = measure_groups(task, matrices)
    if request.json:
        report(json.dumps(group_json(result) | measured | {"protocol": request.protocol}))
    else:
        report(group_table(result))
    if request.csv:
        write_csv(result.per_query, request.csv)


def _sweep(
    request: EvaluationRequest, keep: str, protocol: Protocol, corpus: Corpus, report: Callable[[str], object]
) -> None:
    others = request.csv or request.against or request.intervals or request.backbone or request.visual
    if protocol == "fine-grained" or others:
        raise ModelError(
            "--keep is for category protocols and without --csv, --against, --intervals, --backbone, --visual"
        )
    path, matcher = _checkpoint(request)
    settings = [KeepRates.parse(text, as_zse(matcher.network).config.keep_cross) for text in keep.split(",")]
    found = sweep(matcher, corpus, settings, request.methods)
    report(json.dumps(keep_json(found) | _identity(path.name, matcher)) if request.json else keep_table(found))
    if request.plot:
        series = {m: [(row.costs.pair_macs / 1e6, row.methods[m].map_all) for row in found] for m in found[0].methods}
        axes = "million multiply-adds a pair", "mAP@all"
        draw_lines(series, *axes, request.plot, title=f"{path.name}, {protocol}", bottom=0, top=1)


def _scored(request: EvaluationRequest, corpus: Corpus) -> tuple[dict[str, NDArray[np.floating]], dict[str, str | int]]:
    """The scores of each method, and the identity of what scored."""
    if request.backbone and request.variants > 1:
        raise ModelError("an untrained ViT encodes each sketch once: --variants goes without --backbone")
    matrices: dict[str, NDArray[np.floating]] = {}
    measured: dict[str, str | int] = {}
    if request.weights or not request.backbone:
        path, matcher = _checkpoint(request)
        matrices |= score_matrices(matcher, corpus, request.methods, visual=request.visual, words=request.words)
        measured = _identity(path.name, matcher)
    if request.backbone:
        weights = read_backbone(request.backbone)
        file = expanded(request.backbone)
        matcher = backbone_matcher(weights, file_sha256(file) if file.is_file() else "", request.device)
        matrices |= backbone_matrices(matcher, corpus)
        measured = measured or _identity(file.name, matcher)
    return matrices, measured


def _checkpoint(request: EvaluationRequest) -> tuple[Path, Matcher]:
    path = default_checkpoint(request.weights)
    dtype = None if request.dtype == "auto" else getattr(torch, request.dtype)
    matcher = load(path, request.device, dtype, variants=request.variants)
    unknown = [method for method in request.methods or () if method not in matcher.methods]
    if unknown:
        raise ModelError(f"{path} cannot score by {unknown[0]!r}, only by {', '.join(matcher.methods)}")
    return path, matcher


def _identity(name: str, matcher: Matcher) -> dict[str, str | int]:
    dtype = str(matcher.dtype).removeprefix("torch.")
    sha256 = matcher.checkpoint_sha256
    return {"checkpoint": name, "checkpoint_sha256": sha256, "dtype": dtype, "variants": matcher.variants}
