"""Ways to rank the clusters: how many of the photos looked for lie in the first of them, and within as many pairs.

Rankings by the relation network score the sketch against what stands for a cluster, each a pair; of several stand-ins
the best counts. Rankings by [Ret] read the sketch's distances to all photos, which are no pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from indexer import Index
from indexer.store.clusters import MOST_CELLS, cluster
from model import Matcher, Tokens
from model.network.relation import BestMatchRelation
from model.ranking.diffusion import RET_WIDTH
from service.search.gallery import Gallery, Places, Scores, best_first

NPROBES = (1, 2, 4, 8, 16, 32)
# Sketch-centroid and sketch-photo pairs together.
BUDGETS = (100, 200, 400, 800)
# About as many photos as a search lets through.
AMONG = 200
# What clusters must beat.
SINGLY = "no clusters: best photos by [Ret]"

# From the scores of a cluster's photos by [Ret], and that of the photo at place AMONG of all, to the cluster's score.
BY_RET: dict[str, Callable[[Scores, float], float]] = {
    "[Ret], best photo": lambda scores, _: float(scores.max()),
    "[Ret], mean of 3 best photos": lambda scores, _: float(np.sort(scores)[-3:].mean()),
    # Distances are at most 2: they only decide between clusters of equal counts.
    f"[Ret], photos among {AMONG} best": lambda scores, bar: float((scores >= bar).sum() + scores.max() / 4),
    "[Ret], expected gain": lambda scores, _: float(_likelihoods(scores).sum()),
    "[Ret], expected gain a pair": lambda scores, _: float(_likelihoods(scores).mean()),
}


@dataclass(frozen=True)
class Share:
    """Share of the relevant photos that a ranking finds, mean over the queries.

    Attributes:
        pairs: what the ranking itself scores.
        clusters: by clusters opened. budgets: by pairs scored, those of the ranking and of photos, the last cluster's
            being found evenly.
    """

    pairs: int
    clusters: dict[int, float]
    budgets: dict[int, float]


@dataclass(frozen=True)
class Seen:
    """A sketch, a batch of one, and its scores by [Ret] against all photos, (p,) by place."""

    sketch: Tokens
    ret: Scores


@dataclass(frozen=True)
class Ranking:
    """What scores the c clusters, (c,), higher is better, at the price of so many pairs."""

    pairs: int
    scores: Callable[[Seen], Scores]


class Clusters:
    """The clusters of a gallery, and all ways to rank them."""

    def __init__(self, index: Index, matcher: Matcher) -> None:
        self._index, self._matcher = index, matcher
        self.gallery = Gallery(index, matcher)
        self.sizes = self.gallery.sizes
        self._ret = F.normalize(index.all_ret(), dim=1).numpy()

    def rankings(self) -> dict[str, Ranking]:
        """By name; the index's own centroids first."""
        best, gallery = self._matcher.best_method, self.gallery
        found = {
            "relation network, mean tokens": Ranking(
                len(self.sizes), lambda seen: gallery.centroid_scores(seen.sketch, best)
            ),
            "relation network, medoid": self._by_tokens(self.medoid),
        }
        if isinstance(self._matcher.network.relation, BestMatchRelation):
            found["relation network, mean by worth"] = self._by_tokens(self.mean_by_worth)
        for parts in (2, 4):
            found[f"relation network, means of {parts} parts"] = self._by_tokens(self.mean, parts)
        found["relation network, medoids of 4 parts"] = self._by_tokens(self.medoid, 4)
        found["[Ret], mean"] = Ranking(0, lambda seen: gallery.centroid_scores(seen.sketch, "ret"))
        return found | {name: self._by_ret(score) for name, score in BY_RET.items()}

    def mean(self, places: Places) -> Tokens:
        """One picture's tokens for these photos: at every cell their mean, as an index keeps it of a cluster."""
        photos = self._index.photo_tokens(places)
        return _weighted_mean(photos, torch.ones(photos.positions.shape))

    def mean_by_worth(self, places: Places) -> Tokens:
        """The same, each token weighing what the relation network says it is worth among its photo's."""
        relation = self._matcher.network.relation
        assert isinstance(relation, BestMatchRelation)
        photos = self._index.photo_tokens(places)
        with torch.inference_mode():
            worths = relation.photo_worth(photos.patches.float().to(self._matcher.device))[..., 0].softmax(dim=1)
        return _weighted_mean(photos, worths.cpu())

    def medoid(self, places: Places) -> Tokens:
        """Those of the photo whose [Ret] is nearest to the mean of these."""
        nearness = self._ret[places] @ self._ret[places].mean(axis=0)
        return self._index.photo_tokens(places[nearness.argmax(keepdims=True)])

    def _parts(self, number: int, count: int) -> list[Places]:
        """A cluster's photos, in so many clusters of their own."""
        places = self.gallery.places(number)
        if min(count, len(places)) < 2:
            return [places] if len(places) else []
        _, part = cluster(self._ret[places], min(count, len(places)))
        return [places[part == one] for one in np.unique(part)]

    def _by_tokens(self, stand_in: Callable[[Places], Tokens], count: int = 1) -> Ranking:
        parts = [(number, part) for number in range(len(self.sizes)) for part in self._parts(number, count)]
        of = np.array([number for number, _ in parts])
        side = self._matcher.project(Tokens.cat([stand_in(part) for _, part in parts]))

        def scores(seen: Seen) -> Scores:
            best = np.full(len(self.sizes), -np.inf, np.float32)
            np.maximum.at(best, of, self._matcher.scores(seen.sketch, side)[0].numpy())
            return best

        return Ranking(len(parts), scores)

    def _by_ret(self, score: Callable[[Scores, float], float]) -> Ranking:
        places = [self.gallery.places(number) for number in range(len(self.sizes))]

        def scores(seen: Seen) -> Scores:
            bar = float(np.sort(seen.ret)[-min(AMONG, len(seen.ret))])
            return np.array([score(seen.ret[p], bar) if len(p) else -np.inf for p in places], np.float32)

        return Ranking(0, scores)


def recalls(
    index: Index, matcher: Matcher, queries: Sequence[tuple[Image.Image, NDArray[np.bool_]]]
) -> dict[str, Share]:
    """What every ranking finds, and what is found without clusters.

    queries: a sketch each, and which photos are relevant, (p,) in the order of ``Index.ids``.
    """
    clusters = Clusters(index, matcher)
    gallery, sizes, rankings = clusters.gallery, clusters.sizes, clusters.rankings()
    of_photo = np.repeat(np.arange(len(sizes)), sizes)
    opened: dict[str, list[NDArray[np.float64]]] = {name: [] for name in rankings}
    afforded: dict[str, list[NDArray[np.float64]]] = {name: [] for name in (*rankings, SINGLY)}
    for image, relevant in queries:
        sketch = matcher.encode(matcher.prepare(image, "sketch")[None], "sketch")
        seen = Seen(sketch, gallery.ret_scores(sketch))
        wanted = relevant / max(1, relevant.sum())
        held = np.bincount(of_photo, wanted, minlength=len(sizes))
        for name, ranking in rankings.items():
            order = best_first(np.arange(len(sizes)), ranking.scores(seen))
            opened[name].append(held[order].cumsum())
            photos, found = (np.append(0, each[order].cumsum()) for each in (sizes, held))
            afforded[name].append(np.interp(np.array(BUDGETS) - ranking.pairs, photos, found))
        singly = np.append(0, wanted[best_first(gallery.ids, seen.ret)].cumsum())
        afforded[SINGLY].append(singly[np.minimum(BUDGETS, len(singly) - 1)])
    return {
        name: Share(
            rankings[name].pairs if name in rankings else 0,
            {n: float(np.mean([found[min(n, len(found)) - 1] for found in opened[name]])) for n in NPROBES}
            if name in rankings
            else {},
            dict(zip(BUDGETS, np.mean(each, axis=0).tolist(), strict=True)),
        )
        for name, each in afforded.items()
    }


def _likelihoods(scores: Scores) -> NDArray[np.float64]:
    """In (0, 1], how likely photos are meant: the form in which diffusion averages distances of [Ret]."""
    return np.exp(-(scores.astype(np.float64) ** 2) / RET_WIDTH)


def _weighted_mean(photos: Tokens, weights: torch.Tensor) -> Tokens:
    """One picture's tokens: at each cell the mean by ``weights`` (b, n-1), at the n-1 cells of most weight."""
    cells, kept = photos.positions.flatten(), photos.positions.shape[1]
    weighted = (photos.patches.float() * weights[..., None]).flatten(0, 1)
    sums = torch.zeros(MOST_CELLS, weighted.shape[1]).index_add_(0, cells, weighted)
    totals = torch.zeros(MOST_CELLS).index_add_(0, cells, weights.flatten())
    chosen = totals.argsort(descending=True, stable=True)[:kept].sort().values
    patches = sums[chosen] / totals[chosen, None]
    features = torch.cat([photos.ret.float().mean(dim=0, keepdim=True), patches])
    return Tokens(features[None].to(photos.features.dtype), chosen[None])
