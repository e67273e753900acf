"""What a search found and what it took, as the searcher hands it on and as it is answered."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from model.matcher import Guess
from service.schemas import (
    Cluster,
    FirstStage,
    Guessed,
    Kind,
    SearchResponse,
    SearchResult,
    StageTimings,
    View,
    Words,
    photo_url,
    thumbnail_url,
)


@dataclass(frozen=True)
class Hit:
    """A photo found: rank from 1, score (higher is better), the cluster it was in, the paths that hold it.

    copies: the ids of its near duplicates, best first; None where they were not to be folded.
    """

    id: int
    rank: int
    score: float
    cluster: int
    paths: tuple[str, ...]
    copies: tuple[int, ...] | None = None


@dataclass(frozen=True)
class FoundKind:
    """Photos found that look alike.

    Attributes:
        rank: from 1, in the order in which the kinds' first photos had their turns.
        size: photos of the kind among those that were grouped.
        best: the one that had its turn first. more: some of the next ones.
    """

    rank: int
    size: int
    best: Hit
    more: tuple[Hit, ...]


@dataclass(frozen=True)
class SearchOutcome:
    """What a search found and what it took.

    Attributes:
        results: at most k hits, best first, ties by id; none where kinds were asked for.
        kinds: at most k kinds, in their order; None where photos were asked for.
        view: what was taken where the query left the choice to the search; None where it did not.
        guesses: what the sketch may show, the most probable first; empty without a sketch, or where none is probable.
        clusters: those that the scored photos are in, best first.
        candidates: photos in the ranking, of which the results are a part.
        pairs_scored: sketch-centroid and sketch-photo pairs that ``method`` scored.
        first_stage: what chose the photos that were scored.
        rerank: how many of the chosen photos, the best by [Ret], ``method`` was to score; None for all.
        diffused: whether photos that look alike lent each other their scores.
        budget_spent: whether ``budget_ms`` ended the search before all the photos chosen were scored.
        words: what the query's word was looked up by; None where it has none.
        word_fits: whether a photo that may be found is likely to show what the word names; None where nobody knows.
        method, generation, model, embedder: the method used, the index generation, the checkpoint's name, and what
            the clusters were made with.
    """

    results: tuple[Hit, ...]
    kinds: tuple[FoundKind, ...] | None
    view: View | None
    guesses: tuple[Guess, ...]
    clusters: tuple[Cluster, ...]
    candidates: int
    pairs_scored: int
    first_stage: FirstStage
    rerank: int | None
    diffused: bool
    budget_spent: bool
    words: Words | None
    word_fits: bool | None
    timings: StageTimings
    method: str
    generation: str
    model: str
    embedder: str


def search_response(
    outcome: SearchOutcome, *, originals: bool, prepare_ms: float = 0.0, encode_ms: float = 0.0
) -> SearchResponse:
    """A search's outcome as it is answered.

    Args:
        originals: whether photos have a ``photo_url``.
        prepare_ms: milliseconds of the preparation of the sketch before the search.
        encode_ms: the same of what CLIP's towers made of the query.
    """
    timings = outcome.timings
    before = {
        "prepare": timings.prepare + prepare_ms,
        "encode": timings.encode + encode_ms,
        "total": timings.total + prepare_ms + encode_ms,
    }
    timings = timings.model_copy(update=before)
    return SearchResponse(
        results=_results(outcome.results, originals),
        kinds=None if outcome.kinds is None else tuple(_kind(kind, originals) for kind in outcome.kinds),
        view=outcome.view,
        guesses=tuple(Guessed(word=guess.word, probability=guess.probability) for guess in outcome.guesses),
        clusters=outcome.clusters,
        candidates=outcome.candidates,
        pairs_scored=outcome.pairs_scored,
        method=outcome.method,
        select=outcome.first_stage,
        thin=outcome.rerank,
        diffused=outcome.diffused,
        budget_spent=outcome.budget_spent,
        words=outcome.words,
        word_fits=outcome.word_fits,
        timings_ms=timings.rounded(),
        generation=outcome.generation,
        model=outcome.model,
        embedder=outcome.embedder,
    )


def _kind(kind: FoundKind, originals: bool) -> Kind:
    best = _result(kind.best, originals)
    return Kind(rank=kind.rank, size=kind.size, best=best, more=_results(kind.more, originals))


def _results(hits: Iterable[Hit], originals: bool) -> tuple[SearchResult, ...]:
    return tuple(_result(hit, originals) for hit in hits)


def _result(hit: Hit, originals: bool) -> SearchResult:
    return SearchResult(
        id=hit.id,
        rank=hit.rank,
        score=hit.score,
        cluster=hit.cluster,
        paths=hit.paths,
        photo_url=photo_url(hit.id, originals),
        thumbnail_url=thumbnail_url(hit.id),
        copies=hit.copies,
    )
