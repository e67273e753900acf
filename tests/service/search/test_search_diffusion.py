"""Searches whose scores are diffused, against diffusions made here; and searches of an index without tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer import Request, build, open_index
from model import Matcher, Tokens
from service.engine import Engine
from service.schemas import ExplainParams, SearchQuery
from service.search import plan
from service.serving.live_index import check_searches
from service.settings import Settings
from tests.pictures import encoded
from tests.searching import Searcher
from tests.service.small_gallery import CLUSTERS, PHOTOS, draw_sketch


def test_auto_diffuses_over_all_candidates_and_a_named_method_only_when_asked(diffusing: Searcher) -> None:
    searcher, index, matcher = diffusing, diffusing.index, diffusing.matcher
    plain = searcher.search(draw_sketch(), SearchQuery(k=PHOTOS, nprobe="all", method="rn"))
    assert not plain.diffused
    hits = sorted(plain.results, key=lambda hit: hit.id)
    ids, ret = index.ids, index.vectors.of()
    scores = np.array([[hit.raw_score for hit in hits]], np.float32)
    expected = matcher.diffuse(scores, ret[ids.argsort()], "rn")[0].tolist()
    wanted = sorted(((hit.id, score) for hit, score in zip(hits, expected, strict=True)), key=lambda x: (-x[1], x[0]))

    auto = searcher.search(draw_sketch(), SearchQuery(k=PHOTOS, nprobe="all"))
    assert auto.diffused
    assert [(hit.id, hit.raw_score) for hit in auto.results] == wanted
    assert wanted != [(hit.id, hit.raw_score) for hit in plain.results]
    asked = searcher.search(draw_sketch(), SearchQuery(k=PHOTOS, nprobe="all", method="rn", diffuse=True))
    assert asked.results == auto.results
    refused = searcher.search(draw_sketch(), SearchQuery(k=PHOTOS, nprobe="all", diffuse=False))
    assert refused.results == plain.results
    assert searcher.search(draw_sketch(), SearchQuery(method="ret", diffuse=True)).diffused


@pytest.mark.parametrize("how", [{"quality": "good"}, {"nprobe": "all"}])
def test_in_diffusion_photos_that_were_not_scored_count_as_is_likely_by_those_that_were(
    diffusing: Searcher, how: dict[str, Any]
) -> None:
    searcher, index, matcher = diffusing, diffusing.index, diffusing.matcher
    plain = searcher.search(draw_sketch(), SearchQuery(k=PHOTOS, method="rn", rerank=5, diffuse=False, **how))
    ids, ret = index.ids, index.vectors.of()
    order = ids.argsort()
    known = {hit.id: hit.raw_score for hit in plain.results}
    assert len(known) == 5
    scores = np.array([known.get(photo, 0.0) for photo in ids[order].tolist()], np.float32)
    sketch = matcher.encode(matcher.prepare(draw_sketch(), "sketch")[None], "sketch")
    distances = matcher.ret_distances(sketch, Tokens.of_ret(ret[order]))[0]
    likely = matcher.estimate(scores, scores > 0, distances, ret[order], "rn")
    assert {
        photo: score for photo, score in zip(ids[order].tolist(), likely.tolist(), strict=True) if photo in known
    } == pytest.approx(known, abs=1e-4)
    expected = dict(zip(ids[order].tolist(), matcher.diffuse(likely[None], ret[order], "rn")[0].tolist(), strict=True))

    thinned = searcher.search(draw_sketch(), SearchQuery(k=PHOTOS, rerank=5, **how))
    assert (len(thinned.results), thinned.candidates, thinned.diffused) == (PHOTOS, PHOTOS, True)
    assert {hit.id: hit.raw_score for hit in thinned.results} == pytest.approx(expected, abs=1e-4)
    assert thinned.pairs_scored == plain.pairs_scored


def test_of_photos_that_were_not_scored_only_the_next_best_by_ret_are_ranked(
    diffusing: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    searcher = diffusing
    monkeypatch.setattr(plan, "SHORTLIST", 8)
    by_ret = searcher.search(draw_sketch(), SearchQuery(k=8, method="ret"))
    thinned = searcher.search(draw_sketch(), SearchQuery(k=8, rerank=5))
    assert {hit.id for hit in thinned.results} == {hit.id for hit in by_ret.results}
    assert thinned.candidates == 8
    # A longer page than can be ranked so has as many photos scored as it takes.
    monkeypatch.setattr(plan, "RERANK", 5)
    assert searcher.search(draw_sketch(), SearchQuery(k=8)).pairs_scored == 5
    assert searcher.search(draw_sketch(), SearchQuery(k=9)).pairs_scored == 9


def test_what_a_spent_budget_left_unscored_is_estimated(diffusing: Searcher) -> None:
    matcher = Matcher(diffusing.matcher.engine, diffusing.matcher.checkpoint_sha256)
    matcher.chunk = 4
    few = Searcher(diffusing.index, matcher)
    hurried = few.search(draw_sketch(), SearchQuery(k=PHOTOS, budget_ms=1e-6))
    assert (hurried.budget_spent, hurried.pairs_scored, len(hurried.results)) == (True, 4, PHOTOS)


Both = tuple[Searcher, Searcher]


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory, gallery: Path, diffusing: Searcher) -> Path:
    folder = tmp_path_factory.mktemp("without") / "index"
    build(folder, Request([gallery], clusters=CLUSTERS, embedder="ret", tokens="none"), diffusing.matcher)
    return folder


@pytest.fixture(scope="module")
def both(without: Path, diffusing: Searcher) -> Iterator[Both]:
    with open_index(without, diffusing.matcher) as small:
        yield Searcher(small, diffusing.matcher), diffusing


@pytest.mark.parametrize(
    "asked", [{}, {"text": "cat"}, {"like": (3,)}, {"unlike": (5,)}, {"view": "kinds"}, {"nprobe": 2}]
)
def test_it_is_searched_as_one_with_tokens_by_ret(both: Both, asked: dict[str, Any]) -> None:
    small = both[0].search(draw_sketch(), SearchQuery(k=PHOTOS, **asked))
    whole = both[1].search(draw_sketch(), SearchQuery(k=PHOTOS, method="ret", diffuse=True, **asked))
    assert (small.method, small.results, small.groups) == ("ret", whole.results, whole.groups)


def test_near_duplicates_are_found_by_ret(both: Both) -> None:
    folded = both[0].search(draw_sketch(), SearchQuery(k=PHOTOS, fold=True))
    assert all(hit.copies is not None for hit in folded.results)


def test_it_explains_by_the_photos_files(without: Path, diffusing: Searcher) -> None:
    engine = Engine(Settings(index=without), diffusing.matcher)
    sketch = engine.prepare(encoded(draw_sketch()))
    model_info, index_info = engine.info()
    assert (model_info.methods, model_info.best_method, index_info.tokens) == (("ret",), "ret", 1)
    check_searches(engine.searcher)
    answer = engine.explain(sketch, ExplainParams(photo=[5], nearest=4))
    assert (len(answer.nearest), len(answer.photos[0].nearest)) == (4, 4)
    engine.close()
