"""The two-stage search: choose the photos that are worth scoring, then score each of them by itself.

A search is nine steps, each with a module of its own:

- ``plan``: fill in what the query leaves open.
- ``feedback``: find the photos that are part of the query, and leave out what looks like unliked ones, and what does
  not pass the filters.
- ``naming``: find what the query's word names, if it has one, which leads the next steps.
- ``first_stage``: choose photos, by [Ret] or by the clusters.
- ``scoring``: score these photos by the relation network, as far as the time allows.
- ``diffusing``: let photos that look alike lend each other their scores.
- ``ranking``: put them in order, and cut out the page asked for.
- ``folding``: where that is asked for, near duplicates become one result.
- ``grouping``: where kinds are asked for, put photos that look alike together first.

The score of a photo does not depend on what is scored beside it. So, before diffusion, all ways to search agree on
every photo they share, and with ``nprobe="all"``, the exhaustive search, the order is that of scoring every photo.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from indexer import Index, PhotoFilter
from model import Matcher, Tokens
from model.network import Modality
from service.schemas import (
    Cluster,
    Guessed,
    Kind,
    SearchQuery,
    SearchResponse,
    SearchResult,
    addresses,
)
from service.search.diffusing import diffuse, with_estimates
from service.search.feedback import Feedback, lead, parts_of, pool_of, put_first, with_nearest
from service.search.first_stage import Candidates, choose
from service.search.gallery import Gallery, GalleryScorer, Pool, Surroundings
from service.search.naming import WordSupport, examples, led_by_word, word_fits, word_of, word_scores, word_support
from service.search.parts import Encode, QueryParts, Sketch, encode_parts, encode_photo
from service.search.plan import GROUPED, NO_CLIP, Defaults, Plan, plan_search
from service.search.ranking import NO_ROWS, Scores
from service.search.scoring import Scored, score_candidates
from service.search.shown import FOLDED, Folded, Groups, fold, group_kinds, grouped_places, is_far_ahead
from service.search.stopwatch import Stopwatch
from service.towers import ClipVectors

# Photos of a kind that are shown beside its best one.
MORE = 4
# Filters whose photos are kept, a byte for each photo of the gallery.
FILTERS_KEPT = 16
# Words whose scores are kept, four bytes for each photo.
WORDS_KEPT = 4


@dataclass(frozen=True)
class _Asked:
    """What is searched for.

    Attributes:
        parts, feedback: the parts of the query.
        words: what photos get for the query's word; None without one.
        pool: the photos that may be found.
    """

    parts: QueryParts
    feedback: Feedback
    words: WordSupport | None
    pool: Pool

    @property
    def is_drawing(self) -> bool:
        """Whether the query is a drawing and nothing else."""
        feedback = self.feedback
        return not (feedback.leads or len(feedback.unliked) or self.words is not None)


@dataclass(frozen=True)
class _Ranking:
    """The photos of a search in order.

    Attributes:
        candidates: those that were chosen. scored: those that were scored, with these scores.
        ranked: all that have a place, with the scores that decide it. folded: the order of those that are results.
        undiffused: the scores of the same photos before diffusion; None where there was none, or where more than a
            drawing decides the order.
    """

    candidates: Candidates
    scored: Scored
    ranked: Scored
    folded: Folded
    undiffused: Scores | None


class GallerySearcher:
    """Searches a gallery with the checkpoint that made its tokens.

    Attributes:
        matcher: the checkpoint.
        scorer: the gallery, as it is scored. index: what else is known of its photos.
    """

    def __init__(
        self, gallery: Gallery, matcher: Matcher, defaults: Defaults | None = None, encode: Encode | None = None
    ) -> None:
        """
        Args:
            defaults: what a search does where its query does not say; None for those of ``Defaults``.
            encode: what encodes the sketches and photos of queries; None for the matcher.
        """
        self.matcher = matcher
        self.scorer = gallery
        self.index = gallery.index
        self._encode = matcher.encode if encode is None else encode
        self._defaults = defaults or Defaults()
        # While somebody draws, one word and one filter are asked for again and again.
        self._named = lru_cache(maxsize=WORDS_KEPT)(partial(word_scores, self.scorer))
        self._filtered = lru_cache(maxsize=FILTERS_KEPT)(self.scorer.passing)

    def search(
        self, sketch: Sketch | None, query: SearchQuery, clip: ClipVectors = NO_CLIP, prepare_ms: float = 0.0
    ) -> SearchResponse:
        """The photos that match a sketch best, look most like the photos that the query likes, and show its word.

        sketch: the picture that came with the query, None if none did. It is a photo, which counts as liked, where the
            query's kind says so.
        clip: the query by CLIP, as far as it needs that.
        prepare_ms: milliseconds that the preparation of the sketch has taken already.

        Raises:
            BadSearch: the checkpoint, or the index, cannot do what the query asks for, or it asks for nothing.
            UnknownWord: the vocabulary does not have the query's word.
            UnknownPhoto: an id in the query is no photo's.
            BlankSketch: the sketch is a picture without ink.
        """
        plan = plan_search(query, self.matcher, self._defaults, drawn=sketch is not None, clip=clip)
        word = word_of(query, self.matcher, clip)
        watch = Stopwatch(self.matcher.device, prepare_ms, clip.milliseconds)
        feedback = Feedback.of_query(query, self.scorer)
        drawn = None
        if sketch is not None and query.kind == "photo":
            feedback = replace(feedback, uploaded=encode_photo(sketch, self.matcher, watch, self._encode))
        elif sketch is not None:
            drawn = replace(encode_parts(sketch, self.matcher, watch, self._encode), clip=clip.sketch)
        pool = pool_of(self.scorer, feedback, self._passing(query))
        words = None if word is None else word_support(self.scorer, word, pool, self._named)
        shown = NO_ROWS if words is None else examples(self.scorer, words)
        parts = parts_of(self.scorer, feedback, drawn, shown)
        guesses = () if drawn is None else self.matcher.guesses(drawn.sketch)
        asked, wanted = _Asked(parts, feedback, words, pool), plan.results
        ranking = self._ranking(asked, plan, watch)
        while (missing := wanted - len(ranking.folded.order)) > 0 and _may_grow(ranking, plan, pool):
            # Near duplicates took places. A longer ranking has others for them.
            at_least = max(FOLDED, len(ranking.ranked.rows)) + missing
            plan = plan_search(
                query, self.matcher, self._defaults, drawn=sketch is not None, at_least=at_least, clip=clip
            )
            ranking = self._ranking(asked, plan, watch)
        scored, ranked, order = ranking.scored, ranking.ranked, ranking.folded.order
        view = plan.view
        results: tuple[SearchResult, ...] = ()
        kinds: tuple[Kind, ...] | None = None
        if view != "photos":
            # What is decided and what is shown go by one grouping.
            grouped = self._grouped(ranking)
            groups = group_kinds(self.scorer, ranked.rows[order[grouped]])
            if view == "auto":
                view = "photos" if is_far_ahead(ranked.scores[order[grouped]], groups, plan.method) else "kinds"
        if view == "photos":
            results = self._results(ranked, ranking.folded, range(len(order))[plan.offset : plan.offset + plan.k])
        else:
            kinds = self._kinds(ranking, grouped, groups, plan)
        watch.lap("photos")
        return SearchResponse(
            results=results,
            kinds=kinds,
            view=view if plan.view == "auto" else None,
            guesses=tuple(Guessed(word=guess.word, probability=guess.probability) for guess in guesses),
            clusters=self._opened(ranking.candidates, scored),
            candidates=len(ranked.rows),
            pairs_scored=len(scored.rows) + ranking.candidates.centroids_scored,
            select=plan.first_stage,
            thin=plan.rerank,
            diffused=plan.diffuse,
            budget_spent=not scored.complete,
            words=None if word is None else "vocabulary" if clip.text is None else "clip",
            word_fits=None if words is None else word_fits(words, pool),
            timings_ms=watch.timings(),
            method=plan.method,
            generation=self.index.generation,
            model=self.matcher.config.name,
            embedder=self.index.embedder.name,
        )

    def around(self, given: Tokens, modality: Modality) -> Surroundings:
        """The photos around a sketch, or a photo in its place, that is encoded: a batch of one."""
        return Surroundings(self.scorer, given, modality)

    def _passing(self, query: SearchQuery) -> NDArray[np.bool_] | None:
        """(p,): whether a photo passes the query's filters; None where it has none."""
        wanted = PhotoFilter(tuple(sorted(set(query.folder))), query.after, query.before)
        return None if wanted == PhotoFilter() else self._filtered(wanted)

    def _ranking(self, asked: _Asked, plan: Plan, watch: Stopwatch) -> _Ranking:
        """Choose photos of the pool, score them, put them in order, and fold them where that is asked for."""
        parts, feedback, words = asked.parts, asked.feedback, asked.words
        candidates = choose(self.scorer, parts, plan, asked.pool, words)
        candidates = with_nearest(self.scorer, candidates, feedback, asked.pool)
        watch.lap("clusters")
        scored = score_candidates(self.scorer, parts, candidates, plan, watch)
        watch.lap("photos")
        ranked, undiffused = scored, None
        if plan.diffuse:
            every = with_estimates(self.scorer, self.matcher, scored, candidates.shortlist, plan.method)
            ranked = diffuse(self.scorer, self.matcher, every, plan.method)
            undiffused = every.scores if asked.is_drawing else None
        ranked = lead(self.scorer, ranked, feedback)
        ranked = replace(ranked, scores=led_by_word(ranked.scores, ranked.rows, words, plan.method))
        watch.lap("diffusion")
        ranked, order = put_first(self.scorer.ids[ranked.rows], ranked, feedback)
        folded = Folded(order)
        if plan.fold:
            liked = int(np.isin(ranked.rows, feedback.liked).sum())
            folded = fold(self.scorer, ranked.rows, order, liked)
        return _Ranking(candidates, scored, ranked, folded, undiffused)

    def _results(self, ranked: Scored, folded: Folded, places: Iterable[int]) -> tuple[SearchResult, ...]:
        """The photos at these places of the ranking, counted from 0."""
        results: list[SearchResult] = []
        shown = list(places)
        entries = self.scorer.entries(ranked.rows[folded.order[shown]])
        for place, photo in zip(shown, entries, strict=True):
            n = int(folded.order[place])
            copies = None
            if folded.copies is not None:
                copies = tuple(self.scorer.ids[ranked.rows[folded.copies.get(n, NO_ROWS)]].tolist())
            results.append(
                SearchResult(
                    id=photo.id,
                    rank=place + 1,
                    score=float(ranked.scores[n]),
                    cluster=photo.cluster,
                    paths=photo.paths,
                    **addresses(photo.id, self._defaults.originals),
                    copies=copies,
                )
            )
        return tuple(results)

    def _grouped(self, ranking: _Ranking) -> NDArray[np.int64]:
        """The places in the ranking, from 0, of the photos that are grouped into kinds, in the order of their turns."""
        order = ranking.folded.order
        before = None if ranking.undiffused is None else ranking.undiffused[order]
        return grouped_places(self.scorer.ids[ranking.ranked.rows[order]], before, GROUPED)

    def _kinds(self, ranking: _Ranking, grouped: NDArray[np.int64], groups: Groups, plan: Plan) -> tuple[Kind, ...]:
        """The page of the kinds that was asked for."""
        page = groups[plan.offset : plan.offset + plan.k]
        shown = [grouped[group[: 1 + MORE]].tolist() for group in page]
        # All at once, since each time may be a round of questions to other machines.
        places = [place for of_kind in shown for place in of_kind]
        results = iter(self._results(ranking.ranked, ranking.folded, places))
        kinds: list[Kind] = []
        for rank, (group, of_kind) in enumerate(zip(page, shown, strict=True), plan.offset + 1):
            best, *more = islice(results, len(of_kind))
            kinds.append(Kind(rank=rank, size=len(group), best=best, more=tuple(more)))
        return tuple(kinds)

    def _opened(self, candidates: Candidates, scored: Scored) -> tuple[Cluster, ...]:
        """The clusters of the candidates; where the budget was spent, those alone that photos were scored of."""
        if scored.complete:
            return candidates.clusters
        reached = set(self.scorer.clusters_of(scored.rows).tolist())
        return tuple(cluster for cluster in candidates.clusters if cluster.id in reached)


class Searcher(GallerySearcher):
    """Searches one generation of an index on this machine.

    Attributes:
        index: the generation. scorer: what is kept in memory of it.
    """

    index: Index
    scorer: GalleryScorer

    def __init__(self, index: Index, matcher: Matcher, defaults: Defaults | None = None) -> None:
        """``defaults``: as of ``GallerySearcher``."""
        super().__init__(GalleryScorer(index, matcher), matcher, defaults)


def _may_grow(ranking: _Ranking, plan: Plan, pool: Pool) -> bool:
    """Whether a plan for a longer ranking would give one: the time is not limited, and there are more photos."""
    return plan.fold and plan.budget_ms is None and plan.results <= len(ranking.ranked.rows) < pool.count
