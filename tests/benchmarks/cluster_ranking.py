"""Ways to rank the clusters, and how many of the photos looked for lie in the first of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer import Index
from model import Matcher
from service.gallery import Gallery, best_first

NPROBES = (1, 2, 4, 8, 16, 32)
RANKINGS = ("relation network, mean tokens", "[Ret], mean", "[Ret], best photo")


def recalls(
    index: Index, matcher: Matcher, queries: Sequence[tuple[Image.Image, NDArray[np.bool_]]]
) -> dict[str, dict[int, float]]:
    """By ranking and nprobe, the share of the relevant photos that are in the first clusters, mean over the queries.

    queries: a sketch each, and which photos are relevant, (p,) in the order of ``Index.ids``.
    """
    gallery = Gallery(index, matcher)
    everything = np.arange(len(gallery.ids))
    of_photo = np.repeat(np.arange(len(gallery.sizes)), gallery.sizes)
    shares: dict[str, list[NDArray[np.float64]]] = {name: [] for name in RANKINGS}
    for image, relevant in queries:
        sketch = matcher.encode(matcher.prepare(image, "sketch")[None], "sketch")
        best = np.full(len(gallery.sizes), -np.inf, np.float32)
        np.maximum.at(best, of_photo, gallery.scores(sketch, everything, "ret"))
        means = [gallery.centroid_scores(sketch, method) for method in (matcher.best_method, "ret")]
        held = np.bincount(of_photo[relevant], minlength=len(gallery.sizes)) / max(1, relevant.sum())
        for name, scores in zip(RANKINGS, (*means, best), strict=True):
            shares[name].append(held[best_first(np.arange(len(scores)), scores)].cumsum())
    return {
        name: {n: float(np.mean([found[min(n, len(found)) - 1] for found in each])) for n in NPROBES}
        for name, each in shares.items()
    }
