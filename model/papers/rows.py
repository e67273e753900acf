"""One row of a table of trainings: a network that was trained by a recipe, and its figures."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from model.checkpoint import file_sha256
from model.datasets import Corpus
from model.errors import ModelError
from model.evaluation import Interval, intervals, measure, score_matrices
from model.matcher import load
from model.papers.options import Run
from model.papers.recipe import read_recipe
from model.papers.runs import train
from model.papers.sketch_an_anchor import is_anchor_recipe, read_anchor_recipe


@dataclass(frozen=True)
class TrainedRow:
    """One network of a table.

    Attributes:
        name: of its recipe.
        seed: of its recipe.
        pictures: how many it was trained on, repeats counted.
        parameters: how many numbers its checkpoint holds.
        queries, photos: how many it was measured on.
        figures: for each method "map_all" and "precision_100", with 95% intervals over queries; the method "vis" is the
            mean visual token, without any relation network.
        checkpoint_sha256: of the weights that were measured.
    """

    name: str
    seed: int
    pictures: int
    parameters: int
    queries: int
    photos: int
    figures: dict[str, dict[str, Interval]]
    checkpoint_sha256: str


def trained_row(run: Run, corpus: Corpus, report: Callable[[str], object]) -> TrainedRow:
    """Trains and measures a network. What was done before is kept: its checkpoint, and the figures in a file beside it.

    Args:
        run: its target's name is the row's.
        corpus: the queries and the gallery.
        report: called with sentences about the progress.
    """
    checkpoint = run.target
    if checkpoint is None:
        raise ModelError("a row needs a checkpoint that is measured")
    if not checkpoint.exists():
        train(run, report)
    kept, sha256 = checkpoint.with_suffix(".json"), file_sha256(checkpoint)
    with suppress(OSError, ValidationError):
        row = TypeAdapter(TrainedRow).validate_json(kept.read_bytes())
        if (row.queries, row.photos, row.checkpoint_sha256) == (len(corpus.sketches), len(corpus.photos), sha256):
            return row
    matcher = load(checkpoint)
    result = measure(corpus, score_matrices(matcher, corpus, visual=matcher.token_count("photo") > 1))
    of_method = intervals(result.per_query, "queries")
    recipe = (read_anchor_recipe if is_anchor_recipe(run.recipe) else read_recipe)(run.recipe)
    row = TrainedRow(
        name=checkpoint.stem,
        seed=recipe.seed,
        pictures=recipe.pictures,
        parameters=sum(parameter.numel() for parameter in matcher.network.parameters()),
        queries=len(corpus.sketches),
        photos=len(corpus.photos),
        figures={
            method: {figure: of_method[method][figure] for figure in ("map_all", "precision_100")}
            for method in result.methods
            if not method.endswith("+diffusion")
        },
        checkpoint_sha256=sha256,
    )
    kept.write_text(json.dumps(dataclasses.asdict(row)) + "\n")
    return row


def with_interval(interval: Interval) -> str:
    """A figure with its interval, for a table."""
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"
