"""The two-stage search: choose the photos worth a look, then score each of them by itself.

The sketch is encoded once. What chooses is either the clusters, as the papers have it: the sketch is scored against the
centroid tokens of each, and all photos of the best clusters are candidates. Or it is [Ret], whose distances to all
photos of the gallery cost less than the centroids do: the best of them are scored, and what the next best would have
scored is estimated for the diffusion (``model.ranking``). With ``nprobe="all"`` every photo is scored, which is the
exhaustive search. Scores do not depend on what is scored beside them, so before diffusion all ways agree on every photo
they share.
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
from model.network import Method
from model.ranking import SHORTLIST
from service.errors import BadSearch
from service.search.outcome import Hit, OpenedCluster, SearchOutcome, Select, Timings
from service.search.scorer import Gallery, Places, Scores, best_first

# Photos that [Ret] lets through to the relation network, unless told otherwise. On validation queries, scoring all of
# 11,761 photos instead changed mAP@100 by less than chance in either case; where nothing is diffused, and so nothing
# estimated, 96 lost 0.015. Whole chunks of a matcher on a CPU.
THIN = 96
THIN_PLAIN = 192


@dataclass(frozen=True)
class _Choice:
    """A cluster, and those of its photos that are to be scored."""

    cluster: OpenedCluster
    places: Places


class Searcher:
    """Searches one generation of an index with the checkpoint that made it. gallery: what it has in memory of that."""

    def __init__(self, index: Index, matcher: Matcher, *, select: Select = "ret", nprobe: int = 4) -> None:
        """Where a search does not say: ``select`` is what chooses the photos, ``nprobe`` the least clusters opened."""
        self._index = index
        self._matcher = matcher
        self._select: Select = select
        self._nprobe = nprobe
        self.gallery = Gallery(index, matcher)

    def search(
        self,
        image: Image.Image,
        *,
        k: int = 20,
        offset: int = 0,
        select: Select | None = None,
        nprobe: int | Literal["all"] | None = None,
        method: str = "auto",
        thin: int | None = None,
        diffuse: bool | None = None,
        budget_ms: float | None = None,
    ) -> SearchOutcome:
        """The photos that match a sketch best.

        Args:
            image: the sketch, RGB.
            k, offset: results ``offset + 1`` to ``offset + k`` of the ranking. It is made as long as that, so a deep
                page may look at more photos than the first one.
            select: what chooses the photos to be scored. "clusters": all photos of the best clusters. "ret": the best
                ``thin`` of all photos by [Ret]; with method "ret", all. None for "clusters" where ``nprobe`` is given,
                else for this searcher's.
            nprobe: clusters to open at least; "all" for the exhaustive search; None for this searcher's.
            method: one of the checkpoint's methods, or "auto" for its best.
            thin: only this many candidates, the best by [Ret], are scored by ``method``; there are no more results.
                But if scores are diffused, the SHORTLIST best by [Ret] are ranked, with estimates for those not scored.
                None for all with "clusters"; with "ret" for THIN, without diffusion THIN_PLAIN, or what the page takes.
            diffuse: whether candidates that look alike lend each other their scores (``model.ranking``), so that they
                depend on the candidates; None for yes with method "auto" where the checkpoint knows how, else no.
            budget_ms: no further photos are scored once so many milliseconds have passed: of further clusters, or with
                ``thin`` of those that [Ret] puts behind; the best cluster's, or the first chunk of the matcher, always.

        Raises:
            BadSearch: a parameter out of range, or a method that the checkpoint does not have.
            BlankSketch: the sketch has no ink.
        """
        how = self._checked_method(method, thin)
        spread = self._checked_diffusion(method, diffuse)
        for name, value, least in (("k", k, 1), ("offset", offset, 0), ("nprobe", nprobe, 1), ("thin", thin, 1)):
            if isinstance(value, int) and value < least:
                raise BadSearch(f"{name} must be at least {least}, not {value}.")
        if select == "ret" and nprobe is not None:
            raise BadSearch("nprobe counts clusters, which select=ret does not choose by: leave one of them out.")
        select = select or (self._select if nprobe is None else "clusters")
        start = self._clock()
        pixels = self._matcher.prepare(image, "sketch")
        prepared = self._clock()
        sketch = self._matcher.encode(pixels.unsqueeze(0), "sketch")
        encoded = self._clock()
        if select == "clusters":
            chosen = self._best_clusters(sketch, how, nprobe, k + offset)
        else:
            chosen = self._best_clusters(sketch, "ret", "all", k + offset)
            if how != "ret":
                thin = thin or _thin_for(k + offset, spread)
        ranked, by_ret = np.empty(0, np.int64), np.empty(0, np.float32)
        if thin is not None:
            by_ret = self.gallery.ret_scores(sketch)
            ranked = self._best(_joined(chosen), by_ret, max(thin, SHORTLIST) if spread else thin)
            chosen = self._within(chosen, ranked[:thin])
        if select == "ret":
            chosen = [choice for choice in chosen if len(choice.places)]
        clustered = self._clock()
        deadline = None if budget_ms is None else start + budget_ms / 1000
        # All distances of [Ret] take less time than looking at the clock between them would save.
        hurried = deadline is not None and (select == "clusters" or how != "ret")
        batches = self._batches(chosen, None if thin is None else ranked[:thin], hurried=hurried)
        places, scores = self._scored(sketch, batches, how, deadline)
        spent = len(places) < sum(len(choice.places) for choice in chosen)
        if spent:
            chosen = [choice for choice in self._within(chosen, places) if len(choice.places)]
        pairs = len(places) + (len(self.gallery.sizes) if select == "clusters" else 0)
        scored = self._clock()
        if spread:
            others = np.setdiff1d(ranked[:SHORTLIST], places)
            places, scores = self.gallery.diffused(places, scores, others, by_ret, how)
        diffused = self._clock()
        results = self._hits(places, scores, k, offset)
        finished = self._clock()
        return SearchOutcome(
            results=results,
            clusters=tuple(choice.cluster for choice in chosen),
            candidates=len(places),
            pairs_scored=pairs,
            select=select,
            thin=thin,
            diffused=spread,
            budget_spent=spent,
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
        able = self._matcher.calibration.diffusion is not None
        if diffuse and not able:
            raise BadSearch("This checkpoint has no threshold for diffusion: leave diffuse out.")
        return able and method == "auto" if diffuse is None else diffuse

    def _best_clusters(
        self, sketch: Tokens, method: Method, nprobe: int | Literal["all"] | None, photos: int
    ) -> list[_Choice]:
        """The clusters by their centroids, best first, ties by id, until there are ``nprobe`` with enough photos."""
        scores, sizes = self.gallery.centroid_scores(sketch, method), self.gallery.sizes
        order = [c for c in best_first(np.arange(len(scores)), scores).tolist() if sizes[c]]
        if nprobe != "all":
            least = self._nprobe if nprobe is None else nprobe
            enough = int(np.searchsorted(np.cumsum(sizes[order]), photos)) + 1
            order = order[: max(least, enough)]
        return [_Choice(OpenedCluster(c, float(scores[c]), int(sizes[c])), self.gallery.places(c)) for c in order]

    def _within(self, chosen: list[_Choice], places: Places) -> list[_Choice]:
        """The same clusters, with those of their photos alone that are among these."""
        among = np.zeros(len(self.gallery.ids), np.bool_)
        among[places] = True
        return [_Choice(choice.cluster, choice.places[among[choice.places]]) for choice in chosen]

    def _best(self, places: Places, by_ret: Scores, count: int) -> Places:
        """The ``count`` best of these photos by [Ret], best first; ``by_ret``: scores of all photos."""
        return places[best_first(self.gallery.ids[places], by_ret[places], count)]

    def _batches(self, chosen: list[_Choice], thinned: Places | None, *, hurried: bool) -> list[Places]:
        """What is scored in one go: everything, or where time may run out a cluster's photos, or of those that [Ret]
        let through, ``thinned``, best first, what the matcher takes at once.
        """
        if not hurried:
            # Across clusters: the matcher pads its last chunk.
            return [_joined(chosen)]
        if thinned is None:
            return [choice.places for choice in chosen]
        return np.split(thinned, range(self._matcher.chunk, len(thinned), self._matcher.chunk))

    def _scored(
        self, sketch: Tokens, batches: list[Places], method: Method, deadline: float | None
    ) -> tuple[Places, Scores]:
        """The batches begun until the deadline, in seconds of the clock, the first one always; and their scores."""
        places, scores = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        for number, batch in enumerate(batches):
            if number and deadline is not None and self._clock() >= deadline:
                break
            places.append(batch)
            scores.append(self.gallery.scores(sketch, batch, method))
        return np.concatenate(places), np.concatenate(scores)

    def _hits(self, places: Places, scores: Scores, k: int, offset: int) -> tuple[Hit, ...]:
        """The results ``offset + 1`` to ``offset + k`` of the ranking."""
        hits: list[Hit] = []
        ids = self.gallery.ids[places]
        for place in best_first(ids, scores)[offset : offset + k].tolist():
            photo = self._index.photo(int(ids[place]))
            hits.append(Hit(photo.id, offset + len(hits) + 1, float(scores[place]), photo.cluster, photo.paths))
        return tuple(hits)

    def _clock(self) -> float:
        """Seconds. On a GPU work is only queued: without waiting for it, a stage's time would show in the next one."""
        if self._matcher.device.type == "cuda":
            torch.cuda.synchronize(self._matcher.device)
        return time.perf_counter()


def _thin_for(results: int, spread: bool) -> int:
    """How many photos to score where none says: enough to rank so many."""
    if spread:
        return THIN if results <= SHORTLIST else results
    return max(THIN_PLAIN, results)


def _joined(chosen: list[_Choice]) -> Places:
    """All photos of the clusters, one cluster after the other."""
    return np.concatenate([np.empty(0, np.int64), *(choice.places for choice in chosen)])
