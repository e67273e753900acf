"""The stages of a search, each by itself: first stage, scoring, diffusion, and the stopwatch beside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import model
from indexer import Index
from model import Matcher
from service.schemas import SearchQuery
from service.search.diffusing import with_estimates
from service.search.first_stage import Candidates, Shortlist, best_clusters, by_clusters, by_ret, joined
from service.search.gallery.pool import Pool
from service.search.gallery.scorer import GalleryScorer
from service.search.parts import QueryParts, encode_parts
from service.search.plan import Defaults, Plan, plan_search
from service.search.ranking import best_first
from service.search.scoring import Scored, score_candidates
from service.search.stopwatch import Stopwatch
from tests.networks import tiny_checkpoint
from tests.service.small_gallery import CLUSTERS, PHOTOS, draw_sketch

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scorer(index: Index, matcher: Matcher) -> GalleryScorer:
    return GalleryScorer(index, matcher)


@pytest.fixture(scope="module")
def parts(matcher: Matcher) -> QueryParts:
    return encode_parts(draw_sketch(), matcher, Stopwatch(CPU))


@pytest.fixture
def plan(matcher: Matcher) -> Plan:
    return plan_search(SearchQuery(method="rn", k=3), matcher, Defaults(nprobe=1))


def test_ret_chooses_the_best_of_all_photos_whatever_cluster_they_are_in(
    scorer: GalleryScorer, parts: QueryParts, plan: Plan
) -> None:
    chosen = by_ret(scorer, parts, replace(plan, rerank=6), Pool(scorer))
    by_distance = best_first(scorer.ids, scorer.ret_scores(parts))
    assert joined(chosen.portions).tolist() == by_distance[:6].tolist()
    assert {cluster.id for cluster in chosen.clusters} == set(scorer.clusters_of(by_distance[:6]).tolist())
    assert [cluster.score for cluster in chosen.clusters] == sorted((c.score for c in chosen.clusters), reverse=True)
    assert (chosen.centroids_scored, chosen.shortlist) == (0, None)


def test_ret_scores_no_centroid_by_the_relation_network(
    scorer: GalleryScorer, parts: QueryParts, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorer, "centroid_scores", None)
    monkeypatch.setattr(scorer, "rows_of", None)
    for rerank in (None, 6):
        assert by_ret(scorer, parts, replace(plan, rerank=rerank), Pool(scorer)).portions


def test_a_shortlist_goes_on_where_the_photos_to_be_scored_end(
    scorer: GalleryScorer, parts: QueryParts, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.search.plan.SHORTLIST", 9)
    chosen = by_ret(scorer, parts, replace(plan, rerank=4, diffuse=True), Pool(scorer))
    assert chosen.shortlist is not None
    assert len(joined(chosen.portions)) == 4
    assert chosen.shortlist.rows.tolist() == best_first(scorer.ids, scorer.ret_scores(parts))[:9].tolist()


def test_clusters_are_opened_best_first_until_the_page_is_full(
    scorer: GalleryScorer, parts: QueryParts, plan: Plan
) -> None:
    scores = scorer.centroid_scores(parts, "rn")
    order = best_first(np.arange(CLUSTERS), scores).tolist()
    assert [c.id for c in best_clusters(scorer, parts, replace(plan, nprobe=2, k=1), Pool(scorer))] == order[:2]
    assert [c.id for c in best_clusters(scorer, parts, replace(plan, nprobe="all"), Pool(scorer))] == order
    enough = best_clusters(scorer, parts, replace(plan, nprobe=1, k=PHOTOS - 1), Pool(scorer))
    assert sum(c.size for c in enough[:-1]) < PHOTOS - 1 <= sum(c.size for c in enough)


def test_clusters_bring_all_their_photos_or_the_best_of_them_by_ret(
    scorer: GalleryScorer, parts: QueryParts, plan: Plan
) -> None:
    whole = by_clusters(scorer, parts, replace(plan, nprobe=2, rerank=None), Pool(scorer))
    assert [len(portion) for portion in whole.portions] == [cluster.size for cluster in whole.clusters]
    assert whole.centroids_scored == CLUSTERS
    few = by_clusters(scorer, parts, replace(plan, nprobe=2, rerank=3), Pool(scorer))
    rows, ret_scores = joined(whole.portions), scorer.ret_scores(parts)
    assert joined(few.portions).tolist() == rows[best_first(scorer.ids[rows], ret_scores[rows])][:3].tolist()
    assert few.clusters == whole.clusters


def test_without_a_budget_every_candidate_is_scored(scorer: GalleryScorer, parts: QueryParts, plan: Plan) -> None:
    candidates = Candidates((np.array([5, 3]), np.array([11])), ())
    scored = score_candidates(scorer, parts, candidates, plan, Stopwatch(CPU))
    assert (scored.rows.tolist(), scored.complete) == ([3, 5, 11], True)
    assert scored.scores.tolist() == scorer.scores(parts, scored.rows, "rn").tolist()


def test_a_spent_budget_leaves_the_first_portion(scorer: GalleryScorer, parts: QueryParts, plan: Plan) -> None:
    candidates = Candidates((np.array([5, 3]), np.array([11])), ())
    hurried = score_candidates(scorer, parts, candidates, replace(plan, budget_ms=1e-9), Stopwatch(CPU))
    assert (hurried.rows.tolist(), hurried.complete) == ([5, 3], False)
    at_ease = score_candidates(scorer, parts, candidates, replace(plan, budget_ms=1e9), Stopwatch(CPU))
    assert (at_ease.rows.tolist(), at_ease.complete) == ([5, 3, 11], True)


def test_nothing_to_score_is_scored_completely(scorer: GalleryScorer, parts: QueryParts, plan: Plan) -> None:
    for budget_ms in (None, 1e-9):
        nothing = score_candidates(
            scorer, parts, Candidates((), ()), replace(plan, budget_ms=budget_ms), Stopwatch(CPU)
        )
        assert (len(nothing.rows), len(nothing.scores), nothing.complete) == (0, 0, True)


def test_photos_of_the_shortlist_are_ranked_by_estimates_and_those_scored_count_as_scored(
    index: Index, parts: QueryParts, tmp_path: Path
) -> None:
    matcher = model.load(tiny_checkpoint(tmp_path / "tiny.safetensors", diffusion=0.2), dtype=torch.float32)
    scorer = GalleryScorer(index, matcher)
    rows = np.array([2, 9, 4])
    scored = Scored(rows, scorer.scores(parts, rows, "rn"), complete=False)
    alone = with_estimates(scorer, matcher, scored, None, "rn")
    assert sorted(alone.rows.tolist()) == [2, 4, 9]
    assert scorer.ids[alone.rows].tolist() == sorted(scorer.ids[rows].tolist())
    # All of it was scored, so nothing has to be estimated.
    known = with_estimates(scorer, matcher, scored, Shortlist(rows, scorer.ret_scores(parts)), "rn")
    assert known.scores.tolist() == alone.scores.tolist()
    more = with_estimates(scorer, matcher, scored, Shortlist(np.array([9, 7, 1]), scorer.ret_scores(parts)), "rn")
    assert sorted(more.rows.tolist()) == [1, 2, 4, 7, 9]
    assert not more.complete


def test_all_time_until_the_last_lap_belongs_to_a_stage() -> None:
    watch = Stopwatch(CPU)
    for stage in ("prepare", "encode", "photos", "diffusion", "photos"):
        watch.lap(stage)
    timings = watch.timings()
    assert timings.clusters == 0
    parts = timings.prepare + timings.encode + timings.photos + timings.diffusion
    assert parts == pytest.approx(timings.total)
    assert watch.has_passed(timings.total)
    assert not watch.has_passed(1e9)
