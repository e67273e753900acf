"""The two-stage search: rank the clusters by their centroids, then the photos of the best clusters.

The sketch is encoded once. Stage one scores it against the centroid tokens of every cluster; stage two scores it
against every photo of the clusters taken. With ``nprobe="all"`` every cluster is taken, which is the exhaustive search.
Scores do not depend on what is scored beside them, so two-stage and exhaustive search agree on every photo they share.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image

from indexer import Index
from model import Matcher, Tokens
from model.config import Method
from service.errors import BadSearch
from service.scoring import Ids, Scores, Scoring, best_first


@dataclass(frozen=True)
class Hit:
    """A photo found: rank from 1, score (higher is better), the cluster it was in, the paths that hold it."""

    id: int
    rank: int
    score: float
    cluster: int
    paths: tuple[str, ...]


@dataclass(frozen=True)
class OpenedCluster:
    """A cluster whose photos were considered: the score of its centroid, and how many photos it has."""

    id: int
    score: float
    size: int


@dataclass(frozen=True)
class Timings:
    """Milliseconds a stage: crop and resize, encode, score centroids, score photos, diffuse, and all of it."""

    prepare: float
    encode: float
    clusters: float
    photos: float
    diffusion: float
    total: float


@dataclass(frozen=True)
class SearchOutcome:
    """What a search found and what it took.

    Attributes:
        results: at most k hits, best first, ties by id.
        clusters: the clusters opened, best first.
        candidates: photos in the clusters opened.
        pairs_scored: sketch-centroid and sketch-photo pairs that ``method`` scored.
        thin: how many candidates [Ret] let through to the relation network; None for all.
        diffused: whether photos that look alike lent each other their scores.
        budget_spent: whether ``budget_ms`` ended the search before all the clusters chosen were opened.
        method, generation, model, embedder: the method used, the index generation, the checkpoint's name, and what
            the clusters were made with.
    """

    results: tuple[Hit, ...]
    clusters: tuple[OpenedCluster, ...]
    candidates: int
    pairs_scored: int
    thin: int | None
    diffused: bool
    budget_spent: bool
    timings: Timings
    method: str
    generation: str
    model: str
    embedder: str


class Searcher:
    """Searches one generation of an index with the checkpoint that made it."""

    def __init__(self, index: Index, matcher: Matcher) -> None:
        self._index = index
        self._matcher = matcher
        # Every search reads all the centroids: they are moved once.
        self._centroids = index.centroids.to(matcher.device, matcher.dtype)
        self._centroid_ret = _ret_tokens(index.centroid_ret).to(matcher.device)
        self._sizes = index.cluster_sizes

    def search(
        self,
        image: Image.Image,
        *,
        k: int = 20,
        offset: int = 0,
        nprobe: int | Literal["all"] | None = None,
        method: str = "auto",
        thin: int | None = None,
        diffuse: bool | None = None,
        budget_ms: float | None = None,
    ) -> SearchOutcome:
        """The photos that match a sketch best.

        Args:
            image: the sketch, RGB.
            k, offset: results ``offset + 1`` to ``offset + k`` of the ranking. Clusters are opened until they hold
                ``k + offset`` photos, so a deep page may look at more clusters than the first one.
            nprobe: clusters to open at least; "all" for the exhaustive search; None for the checkpoint's default.
            method: one of the checkpoint's methods, or "auto" for its best.
            thin: only this many candidates, the best by [Ret], are scored by ``method``; there are no more results.
            diffuse: whether candidates that look alike lend each other their scores (``model.diffusion``), so that they
                depend on the candidates; None for yes with method "auto" where the checkpoint knows how, else no.
            budget_ms: no further cluster is opened once so many milliseconds have passed; the best one always is.

        Raises:
            BadSearch: a parameter out of range, or a method that the checkpoint does not have.
            BlankSketch: the sketch has no ink.
        """
        how = self._checked_method(method, thin)
        spread = self._checked_diffusion(method, diffuse)
        for name, value, least in (("k", k, 1), ("offset", offset, 0), ("nprobe", nprobe, 1), ("thin", thin, 1)):
            if isinstance(value, int) and value < least:
                raise BadSearch(f"{name} must be at least {least}, not {value}.")
        start = self._clock()
        pixels = self._matcher.prepare(image, "sketch")
        prepared = self._clock()
        sketch = self._matcher.encode(pixels.unsqueeze(0), "sketch")
        encoded = self._clock()
        ranked = self._ranked_clusters(sketch, how)
        chosen = self._chosen(ranked, nprobe, k + offset)
        clustered = self._clock()

        kept = None if thin is None else self._best_by_ret(sketch, chosen, thin)
        photos = Scoring(self._matcher, sketch, how)
        opened: list[OpenedCluster] = []
        for cluster in chosen:
            if opened and budget_ms is not None and (self._clock() - start) * 1000 >= budget_ms:
                break
            opened.append(cluster)
            photos.add(*self._photos(cluster.id, how, kept))
            if budget_ms is not None:
                photos.flush()  # the time they take is known only afterwards
        ids, scores = photos.finish()
        scored = self._clock()
        if spread:
            ids, scores = photos.diffused(ids, scores)
        diffused = self._clock()
        results = self._hits(ids, scores, k, offset)
        finished = self._clock()
        return SearchOutcome(
            results=results,
            clusters=tuple(opened),
            candidates=sum(cluster.size for cluster in opened),
            pairs_scored=len(self._sizes) + len(ids),
            thin=thin,
            diffused=spread,
            budget_spent=len(opened) < len(chosen),
            timings=Timings(
                prepare=(prepared - start) * 1000,
                encode=(encoded - prepared) * 1000,
                clusters=(clustered - encoded) * 1000,
                photos=(scored - clustered + finished - diffused) * 1000,
                diffusion=(diffused - scored) * 1000,
                total=(finished - start) * 1000,
            ),
            method=how,
            generation=self._index.generation,
            model=self._matcher.config.name,
            embedder=self._index.manifest.embedder.name,
        )

    def _checked_method(self, method: str, thin: int | None) -> Method:
        wanted = self._matcher.best_method if method == "auto" else method
        chosen = next((known for known in self._matcher.methods if known == wanted), None)
        if chosen is None:
            known = ", ".join(("auto", *self._matcher.methods))
            raise BadSearch(f"This checkpoint has no method {wanted!r}; it has {known}.")
        if chosen == "ret" and thin is not None:
            raise BadSearch("thin goes before the relation network, which method 'ret' does not use: leave it out.")
        return chosen

    def _checked_diffusion(self, method: str, diffuse: bool | None) -> bool:
        able = self._matcher.config.diffusion is not None
        if diffuse and not able:
            raise BadSearch("This checkpoint has no threshold for diffusion: leave diffuse out.")
        return able and method == "auto" if diffuse is None else diffuse

    def _ranked_clusters(self, sketch: Tokens, method: Method) -> list[OpenedCluster]:
        """All clusters that have photos, best first, ties by id."""
        if not len(self._sizes):
            return []
        centroids = self._centroid_ret if method == "ret" else self._centroids
        scores = self._matcher.scores(sketch, centroids, method)[0].numpy()
        order = best_first(np.arange(len(scores)), scores).tolist()
        return [OpenedCluster(c, float(scores[c]), int(self._sizes[c])) for c in order if self._sizes[c]]

    def _chosen(
        self, ranked: list[OpenedCluster], nprobe: int | Literal["all"] | None, photos: int
    ) -> list[OpenedCluster]:
        """The best clusters until there are ``nprobe`` of them and they hold at least ``photos`` photos."""
        if nprobe == "all":
            return ranked
        least = self._matcher.config.nprobe if nprobe is None else nprobe
        held = np.cumsum([cluster.size for cluster in ranked])
        enough = int(np.searchsorted(held, photos)) + 1
        return ranked[: max(least, enough)]

    def _best_by_ret(self, sketch: Tokens, chosen: list[OpenedCluster], thin: int) -> Ids:
        """Ids of the ``thin`` best photos by [Ret] among all in the clusters."""
        photos = Scoring(self._matcher, sketch, "ret")
        for cluster in chosen:
            photos.add(*self._photos(cluster.id, "ret", None))
        ids, scores = photos.finish()
        return ids[best_first(ids, scores)[:thin]]

    def _photos(self, cluster: int, method: Method, kept: Ids | None) -> tuple[Ids, Tokens]:
        """Ids and tokens of the photos of one cluster; of those in ``kept``, where it is given."""
        if method == "ret":
            ids, ret = self._index.cluster_ret(cluster)
            return ids, _ret_tokens(ret)
        rows = self._index.cluster(cluster)
        if kept is None:
            return rows.ids, rows.tokens
        chosen = np.flatnonzero(np.isin(rows.ids, kept))
        return rows.ids[chosen], rows.tokens[torch.from_numpy(chosen)]

    def _hits(self, ids: Ids, scores: Scores, k: int, offset: int) -> tuple[Hit, ...]:
        """The results ``offset + 1`` to ``offset + k`` of the ranking."""
        hits: list[Hit] = []
        for place in best_first(ids, scores)[offset : offset + k].tolist():
            photo = self._index.photo(int(ids[place]))
            hits.append(Hit(photo.id, offset + len(hits) + 1, float(scores[place]), photo.cluster, photo.paths))
        return tuple(hits)

    def _clock(self) -> float:
        """Seconds. On a GPU work is only queued: without waiting for it, a stage's time would show in the next one."""
        if self._matcher.device.type == "cuda":
            torch.cuda.synchronize(self._matcher.device)
        return time.perf_counter()


def _ret_tokens(ret: torch.Tensor) -> Tokens:
    """(m, d) retrieval tokens as Tokens with n = 1, which is all that method "ret" reads."""
    return Tokens(ret.unsqueeze(1), torch.empty(len(ret), 0, dtype=torch.int64))
