"""One whole evaluation: from a request, through pictures and networks, to figures and files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from model.checkpoint import default_checkpoint
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
from model.evaluation.figures import SUBSET, TITLES, Evaluation, measure, measure_groups, measure_instances
from model.evaluation.per_query import (
    RESAMPLED,
    Resampled,
    against,
    comparison_json,
    comparison_table,
    read_csv,
    write_csv,
)
from model.evaluation.scoring import check_classes, score_matrices
from model.matcher import Matcher, load
from model.network import Method


@dataclass(frozen=True)
class EvaluationRequest:
    """An evaluation that was asked for: the options of ``python -m model evaluate``.

    Attributes:
        weights: the checkpoint; None for the embedded one.
        protocol, split, trained_on, data, layout: as for ``model.datasets.read_task``.
        by_class: print the figures of each class by itself, of its first results and of the whole ranking.
        every: (n, m) takes every n-th sketch and every m-th photo; None takes all.
        methods: None for all that the checkpoint has.
        words: whether to search by the words of the classes, too; for protocols of large galleries.
        variants: how often a sketch is encoded, as for ``model.load``.
        device, dtype: where to compute and in which precision; dtype "auto" leaves the choice to ``model.load``.
        json: print one JSON object instead of tables.
        intervals: what the confidence intervals are resampled over; None for no intervals.
        csv: a file to write each query's figures to; None for none.
        against: such a file of another evaluation, to compare with; None for none.
    """

    weights: Path | None
    protocol: Protocol
    split: str | None
    trained_on: str | None
    data: Path | None
    layout: Layout
    by_class: bool
    every: tuple[int, int] | None
    methods: Sequence[Method] | None
    words: bool
    variants: int | None
    device: str
    dtype: str
    json: bool
    intervals: Resampled | None
    csv: Path | None
    against: Path | None


def run_evaluation(
    request: EvaluationRequest, report: Callable[[str], object], baseline: Matcher | None = None
) -> None:
    """Measures, passes the figures as text to ``report``, then writes the requested file.

    ``baseline`` is measured in the place of the checkpoint.
    Raises ModelError for options that contradict each other, ImageError and OSError for files that cannot be read or
    written.
    """
    large = request.protocol in LARGE_PROTOCOLS
    if large and (request.data or request.by_class):
        raise ModelError(f"--protocol {request.protocol} goes without --data and --by-class")
    if request.words and not large:
        raise ModelError(f"--words is for --protocol {', '.join(LARGE_PROTOCOLS)}")
    if request.by_class and request.protocol == "fine-grained":
        raise ModelError("--by-class is for category protocols")
    other = read_csv(request.against) if request.against else None
    task: Task | GroupedTask
    if large:
        task = read_large_task(request.protocol, request.split, request.trained_on)
        task = task.subsampled(*request.every) if request.every else task
    else:
        task = read_task(request.protocol, request.split, request.trained_on, request.data, request.layout)
    corpus = task.corpus if large or not request.every else subsampled(task.corpus, *request.every)
    about = task.about if isinstance(task, Task) else ()
    if request.by_class:
        check_classes(corpus)
        corpus = answerable(corpus)
        labels = sorted({sketch.label for sketch in corpus.sketches})
        task = GroupedTask(corpus, {label: frozenset({label}) for label in labels})
    result, measured = _measured(request, task, corpus, baseline)
    resampled = request.intervals or RESAMPLED[0]
    paired = against(result.per_query, other, resampled) if other else ()
    if request.json:
        more = comparison_json(result.per_query, resampled, paired)
        report(json.dumps(result.json() | measured | {"protocol": request.protocol, "about": about} | more))
    else:
        report(result.table())
        if isinstance(task, Task) and SUBSET in result.groups:
            report(f"\n{SUBSET} in ImageNet-1k: {', '.join(task.subset)}")
        for sentence in about:
            report(f"\n{request.protocol}: {sentence}")
        if request.intervals or other:
            report("\n" + comparison_table(result.per_query, resampled, paired, TITLES))
    if request.csv:
        write_csv(result.per_query, request.csv)


def _measured(
    request: EvaluationRequest, task: Task | GroupedTask, corpus: Corpus, baseline: Matcher | None
) -> tuple[Evaluation, dict[str, str | int]]:
    """The figures, and the identity of what scored."""
    if baseline is None:
        path = default_checkpoint(request.weights)
        dtype = None if request.dtype == "auto" else getattr(torch, request.dtype)
        matcher, name = load(path, request.device, dtype, variants=request.variants), path.name
    else:
        matcher, name = baseline, baseline.config.name
    matrices = score_matrices(matcher, corpus, request.methods, words=request.words)
    identity: dict[str, str | int] = {
        "checkpoint": name,
        "checkpoint_sha256": matcher.checkpoint_sha256,
        "dtype": str(matcher.dtype).removeprefix("torch."),
        "variants": matcher.variants,
    }
    if isinstance(task, GroupedTask):
        return measure_groups(task, matrices), identity
    if request.protocol == "fine-grained":
        return measure_instances(corpus, matrices), identity
    return measure(corpus, matrices, task.subset), identity
