"""The first stage: choose the photos that are worth the cost of scoring.

``by_clusters`` is the papers' way: the sketch is scored against the centroid tokens of every cluster, and all photos of
the best clusters are chosen. ``by_ret`` needs no clusters: the distances of [Ret] to all photos of the gallery cost
less than scoring the centroids does, and the best photos by it are chosen.

A word of the query leads these distances, too. The best clusters know nothing of it, so its best photos come beside
theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from model.ranking import SHORTLIST
from service.schemas import Cluster
from service.search.gallery import Gallery, Pool
from service.search.naming import WordSupport, best_by_word, led_by_word
from service.search.parts import QueryParts
from service.search.plan import RERANK, Plan
from service.search.ranking import NO_ROWS, Rows, Scores, best_first

# Photos that join those of the best clusters because they are the best ones by the query's word: as many as are scored
# where [Ret] chooses.
NAMED = RERANK


@dataclass(frozen=True)
class Shortlist:
    """Photos that the diffusion ranks, whether or not they are scored.

    Attributes:
        rows: the photos, best by [Ret] first.
        ret_scores: (p,), all photos' scores by [Ret], from which the missing ones are estimated. In a large gallery it
            is not a number where a photo was not compared; all photos that are scored were.
    """

    rows: Rows
    ret_scores: Scores


@dataclass(frozen=True)
class Candidates:
    """The photos that the first stage chose.

    Attributes:
        portions: rows to be scored, most promising first. A budget may end the search between two of them.
        clusters: those opened, or those that the chosen photos are in; best first.
        centroids_scored: how many centroids were scored by the query's method.
        shortlist: None where all of the candidates are to be scored, or nothing is diffused.
    """

    portions: tuple[Rows, ...]
    clusters: tuple[Cluster, ...]
    centroids_scored: int = 0
    shortlist: Shortlist | None = None


def choose(scorer: Gallery, parts: QueryParts, plan: Plan, pool: Pool, words: WordSupport | None = None) -> Candidates:
    """The photos of the pool to be scored, as the plan says. words: the support of the query's word, if it has one."""
    by = by_ret if plan.first_stage == "ret" else by_clusters
    return by(scorer, parts, plan, pool, words)


def by_ret(scorer: Gallery, parts: QueryParts, plan: Plan, pool: Pool, words: WordSupport | None = None) -> Candidates:
    """The ``plan.rerank`` best photos of the pool by [Ret]; all of them where the plan names no number.

    In a large gallery, "all" are those that have a place in the ranking.
    """
    count = max(plan.results, SHORTLIST) if plan.rerank is None else max(plan.rerank, plan.estimated)
    if plan.rerank is None and not scorer.is_large:
        rows = pool.rows
    else:
        rows = pool.near(parts, plan.method, count, None if words is None else words.lead)
    if words is not None and len(rows) < pool.count:
        rows = np.union1d(rows, words.near)
    if plan.rerank is None:
        opened = np.flatnonzero(pool.cluster_sizes) if rows is pool.rows else np.unique(scorer.clusters_of(rows))
        # One portion: all distances of [Ret] take less time than looking at the clock between them would save.
        return Candidates((rows,), scorer.clusters_by_ret(parts, opened))
    portions, shortlist = _reranked(scorer, parts, plan, rows, plan.rerank, words)
    opened = np.unique(scorer.clusters_of(joined(portions)))
    return Candidates(portions, scorer.clusters_by_ret(parts, opened), shortlist=shortlist)


def by_clusters(
    scorer: Gallery, parts: QueryParts, plan: Plan, pool: Pool, words: WordSupport | None = None
) -> Candidates:
    """All photos of the best clusters; with ``plan.rerank`` only the best of these by [Ret]."""
    clusters = best_clusters(scorer, parts, plan, pool)
    portions = tuple(pool.of_cluster(cluster.id) for cluster in clusters)
    if words is not None:
        portions = with_more(portions, best_by_word(scorer, words, NAMED))
    shortlist = None
    if plan.rerank is not None:
        portions, shortlist = _reranked(scorer, parts, plan, joined(portions), plan.rerank, words)
    return Candidates(portions, clusters, len(scorer.cluster_sizes), shortlist)


def best_clusters(scorer: Gallery, parts: QueryParts, plan: Plan, pool: Pool) -> tuple[Cluster, ...]:
    """The best clusters by their centroids, ties by id: at least ``nprobe``, and enough to fill the page asked for.

    Their sizes count photos of the pool; those without any are not opened.
    """
    scores, sizes = scorer.centroid_scores(parts, plan.method), pool.cluster_sizes
    order = best_first(np.arange(len(scores)), scores)
    order = order[sizes[order] > 0]
    if plan.nprobe != "all":
        enough = int(np.searchsorted(np.cumsum(sizes[order]), plan.results)) + 1
        order = order[: max(plan.nprobe, enough)]
    return tuple(Cluster(id=c, score=float(scores[c]), size=int(sizes[c])) for c in order.tolist())


def joined(portions: Iterable[Rows]) -> Rows:
    """All rows of these portions."""
    return np.concatenate([NO_ROWS, *portions])


def with_more(portions: Sequence[Rows], rows: Rows) -> tuple[Rows, ...]:
    """The portions with further rows in the first one, so that they are scored however little time there is."""
    first, *others = portions or (NO_ROWS,)
    later = [portion[~np.isin(portion, rows)] for portion in others]
    return (np.concatenate([first, np.setdiff1d(rows, first)]), *later)


def _reranked(
    scorer: Gallery, parts: QueryParts, plan: Plan, rows: Rows, count: int, words: WordSupport | None
) -> tuple[tuple[Rows, ...], Shortlist | None]:
    """The ``count`` best of ``rows`` by [Ret], in portions of what the matcher scores at once; and the shortlist.

    A word leads [Ret] here as it leads the ranking, so that no more photos are scored with one than without.
    """
    ret_scores = np.full(scorer.photo_count, np.nan, np.float32)
    ret_scores[rows] = scorer.ret_scores(parts, rows)
    by = led_by_word(ret_scores[rows], rows, words, "ret")
    ranked = rows[best_first(scorer.ids[rows], by, max(count, plan.estimated))]
    best = ranked[:count]
    portions = tuple(np.split(best, range(scorer.chunk, len(best), scorer.chunk)))
    return portions, Shortlist(ranked[: plan.estimated], ret_scores) if plan.diffuse else None
