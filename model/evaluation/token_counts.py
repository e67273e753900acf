"""One checkpoint with its tokens pooled into several numbers of groups: its figures and the costs of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.datasets import Corpus
from model.evaluation.keep_rates import TIMED_PHOTOS, TIMED_SKETCHES, time_pairs
from model.evaluation.per_query import PerQuery
from model.evaluation.scoring import encode_pictures, token_matrices
from model.matcher import Matcher
from model.network import GroupCounts, Method, as_zse, costs

# Of the figures of all protocols, those that a table shows.
_SHOWN = {"map_all": "mAP@all", "acc_1": "acc@1", "acc_10": "acc@10", "gallery_acc_10": "gallery@10"}
#: From the scores (sketches, photos) of each method to the figures of each query.
Measure = Callable[[Mapping[str, NDArray[np.floating]]], PerQuery]


@dataclass(frozen=True)
class TokenFigures:
    """One setting.

    Attributes:
        sketch_tokens, photo_tokens: patch tokens of an image, [Ret] not counted.
        figures: the mean of each figure of each method.
        milliseconds: time of one pair on this machine: the photo's projection, cross-attention and relation network.
        photo_bytes: of a photo's tokens in an index.
    """

    sketch_tokens: int
    photo_tokens: int
    figures: dict[str, dict[str, float]]
    milliseconds: float
    photo_bytes: int


def compare_token_counts(
    matcher: Matcher,
    corpus: Corpus,
    settings: Sequence[GroupCounts],
    measure: Measure,
    methods: Sequence[Method] | None = None,
) -> tuple[TokenFigures, ...]:
    """Measures the same weights with each setting in turn. Pictures are encoded once.

    Raises ModelError where the network's tokens cannot be pooled.
    """
    others = [matcher.with_groups(counts) for counts in settings]
    every = matcher.with_groups(GroupCounts())
    sketches, photos = (
        encode_pictures(every, corpus.sketches, "sketch"),
        encode_pictures(every, corpus.photos, "photo"),
    )
    found = []
    for other in others:
        network = as_zse(other.network)
        queries, gallery = network.pool(sketches, "sketch"), network.pool(photos, "photo")
        measured = measure(token_matrices(other, queries, gallery, methods))
        found.append(
            TokenFigures(
                other.token_count("sketch") - 1,
                other.token_count("photo") - 1,
                {m: {name: float(c.mean()) for name, c in row.items()} for m, row in measured.values.items()},
                time_pairs(other, queries[:TIMED_SKETCHES], gallery[:TIMED_PHOTOS]),
                costs(network.config).photo_bytes,
            )
        )
    return tuple(found)


def token_table(found: Sequence[TokenFigures]) -> str:
    """Lines for each method, one a setting: its figures and costs."""
    lines = ["patch tokens of a sketch and of a photo; microseconds as they were here"]
    for method, row in found[0].figures.items():
        shown = [name for name in _SHOWN if name in row]
        heads = [*(_SHOWN[name] for name in shown), "us/pair", "KiB/photo"]
        lines += ["", f"{method:<20}" + "".join(f"{head:>13}" for head in heads)]
        for one in found:
            figures = "".join(f"{one.figures[method][name]:>13.4f}" for name in shown)
            costs_of = f"{1000 * one.milliseconds:>13.0f}{one.photo_bytes / 1024:>13.2f}"
            lines.append(f"{f'{one.sketch_tokens}/{one.photo_tokens}':<20}" + figures + costs_of)
    return "\n".join(lines)


def token_json(found: Sequence[TokenFigures]) -> dict[str, object]:
    """All figures and costs of each setting."""
    return {"tokens": [dataclasses.asdict(one) for one in found]}
