"""The photos that lie around a sketch and around its photos, against searches and against what [Ret] says by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from indexer import Index
from model import Matcher
from model.images import Pixels
from model.ranking import centred
from service.explain.response import explain
from service.schemas.explain import ExplainParams, ExplainResponse
from service.schemas.query import SearchQuery
from tests.searching import Searcher
from tests.service.explain.test_explain import prepared
from tests.service.small_gallery import PHOTOS

EXPLAINED = (5, 12)


@pytest.fixture(scope="module")
def searcher(index: Index, matcher: Matcher) -> Searcher:
    return Searcher(index, matcher)


@pytest.fixture(scope="module")
def response(searcher: Searcher, sketch: bytes) -> ExplainResponse:
    return explain(searcher, prepared(searcher.matcher, sketch), ExplainParams(photo=list(EXPLAINED)), originals=True)


def ranked(searcher: Searcher, query: SearchQuery, sketch: Pixels | None = None) -> dict[int, tuple[int, float]]:
    """Rank and score of every photo by a search, best first."""
    return {hit.id: (hit.rank, hit.raw_score) for hit in searcher.search(sketch, query).results}


def test_the_photos_nearest_to_a_sketch_are_the_first_of_a_search_by_ret_before_diffusion(
    searcher: Searcher, response: ExplainResponse, sketch: bytes
) -> None:
    found = ranked(searcher, SearchQuery(k=PHOTOS, method="ret", diffuse=False), prepared(searcher.matcher, sketch))
    assert [one.id for one in response.nearest] == list(found)[:6]
    for one in response.nearest:
        rank, score = found[one.id]
        assert one.rank == rank
        assert one.cosine == pytest.approx(1 - score**2 / 2, abs=6e-4)
        assert one.paths == searcher.index.photo(one.id).paths
        assert one.thumbnail_url == f"/thumbnails/{one.id}"
    for explained in response.photos:
        assert explained.ret_rank == found[explained.id][0]
        assert [near.rank for near in explained.nearest] == [found[near.id][0] for near in explained.nearest]


def by_hand(index: Index, photo: int) -> dict[int, float]:
    """How much each photo is like one of the index: the cosine of their [Ret] without the mean; the nearest first."""
    directions = centred(index.vectors.of())
    cosines = directions @ directions[index.ids.tolist().index(photo)]
    order = cosines.argsort(descending=True)
    return dict(zip(index.ids[order.numpy()].tolist(), cosines[order].tolist(), strict=True))


def test_the_photos_nearest_to_a_photo_are_those_that_diffusion_would_take_scores_from(
    index: Index, response: ExplainResponse
) -> None:
    for explained in response.photos:
        own, *others = by_hand(index, explained.id).items()
        assert own[0] == explained.id
        assert [near.id for near in explained.nearest] == [photo for photo, _ in others[:6]]
        np.testing.assert_allclose([near.cosine for near in explained.nearest], [c for _, c in others[:6]], atol=2e-3)


def test_around_a_liked_photo_are_those_like_it_and_it_is_not_said_to_be_like_itself(searcher: Searcher) -> None:
    liked = explain(searcher, None, ExplainParams(photo=[7, 12], like=7, nearest=3), originals=False)
    found = list(by_hand(searcher.index, 7))
    assert [one.id for one in liked.nearest] == found[1:4]
    # As in a search, where the liked photo is the first result.
    assert [one.ret_rank for one in liked.photos] == [1, 1 + found.index(12)]
    assert liked.photos[0].nearest == liked.nearest
    assert all(one.photo_url is None for one in liked.nearest)


def test_no_nearest_photos_are_named_where_none_are_wanted(searcher: Searcher) -> None:
    bare = explain(searcher, None, ExplainParams(photo=[1], like=7, nearest=0), originals=True)
    assert (bare.nearest, bare.photos[0].nearest) == ([], [])
    everything = explain(searcher, None, ExplainParams(photo=[1], like=7, nearest=20), originals=True)
    assert len(everything.photos[0].nearest) == 20
    assert torch.tensor([one.cosine for one in everything.nearest]).diff().le(0).all()
