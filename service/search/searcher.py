"""The two-stage search: choose the photos that are worth scoring, then score each of them by itself.

A search is five steps, each with a module of its own:

- ``plan``: fill in what the query leaves open.
- ``first_stage``: choose photos, by [Ret] or by the clusters.
- ``scoring``: score these photos by the relation network, as far as the time allows.
- ``diffusing``: let photos that look alike lend each other their scores.
- ``ranking``: put them in order, and cut out the page asked for.

The score of a photo does not depend on what is scored beside it. So, before diffusion, all ways to search agree on
every photo they share, and with ``nprobe="all"``, the exhaustive search, the order is that of scoring every photo.
"""

from __future__ import annotations

from indexer import Index
from model import Matcher
from service.schemas import Cluster, SearchQuery
from service.search.diffusing import diffuse
from service.search.first_stage import Candidates, choose
from service.search.outcome import Hit, SearchOutcome
from service.search.parts import Sketch, encode_parts
from service.search.plan import Defaults, Plan, plan_search
from service.search.ranking import best_first
from service.search.scorer import GalleryScorer
from service.search.scoring import Scored, score_candidates
from service.search.stopwatch import Stopwatch


class Searcher:
    """Searches one generation of an index with the checkpoint that made it.

    Attributes:
        index, matcher: the generation and the checkpoint.
        scorer: what is kept in memory of the generation.
    """

    def __init__(self, index: Index, matcher: Matcher, defaults: Defaults | None = None) -> None:
        """``defaults``: what a search does where its query does not say; None for those of ``Defaults``."""
        self.index = index
        self.matcher = matcher
        self._defaults = defaults or Defaults()
        self.scorer = GalleryScorer(index, matcher)

    def search(self, sketch: Sketch, query: SearchQuery) -> SearchOutcome:
        """The photos that match a sketch best.

        Raises:
            BadSearch: the checkpoint cannot do what the query asks for.
            BlankSketch: the sketch is a picture without ink.
        """
        plan = plan_search(query, self.matcher, self._defaults)
        watch = Stopwatch(self.matcher.device)
        parts = encode_parts(sketch, self.matcher, watch)
        candidates = choose(self.scorer, parts, plan)
        watch.lap("clusters")
        scored = score_candidates(self.scorer, parts, candidates, plan, watch)
        watch.lap("photos")
        ranked = scored
        if plan.diffuse:
            ranked = diffuse(self.scorer, self.matcher, scored, candidates.shortlist, plan.method)
        watch.lap("diffusion")
        hits = self._hits(ranked, plan)
        watch.lap("photos")
        return SearchOutcome(
            results=hits,
            clusters=self._opened(candidates, scored),
            candidates=len(ranked.rows),
            pairs_scored=len(scored.rows) + candidates.centroids_scored,
            first_stage=plan.first_stage,
            rerank=plan.rerank,
            diffused=plan.diffuse,
            budget_spent=not scored.complete,
            timings=watch.timings(),
            method=plan.method,
            generation=self.index.generation,
            model=self.matcher.config.name,
            embedder=self.index.manifest.embedder.name,
        )

    def _hits(self, ranked: Scored, plan: Plan) -> tuple[Hit, ...]:
        """The page of the ranking that was asked for."""
        ids = self.scorer.ids[ranked.rows]
        page = best_first(ids, ranked.scores)[plan.offset : plan.results]
        hits: list[Hit] = []
        for rank, n in enumerate(page.tolist(), plan.offset + 1):
            photo = self.index.photo(int(ids[n]))
            hits.append(Hit(photo.id, rank, float(ranked.scores[n]), photo.cluster, photo.paths))
        return tuple(hits)

    def _opened(self, candidates: Candidates, scored: Scored) -> tuple[Cluster, ...]:
        """The clusters of the candidates; where the budget was spent, those alone that photos were scored of."""
        if scored.complete:
            return candidates.clusters
        reached = set(self.scorer.clusters_of(scored.rows).tolist())
        return tuple(cluster for cluster in candidates.clusters if cluster.id in reached)
