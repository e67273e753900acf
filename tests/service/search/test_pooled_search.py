"""Searches and explanations over an index with pooled tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from indexer import Index, build, open_index
from model import Matcher
from model.network import GroupCounts
from service.engine import Engine
from service.explain import explain
from service.schemas import ExplainParams, SearchQuery
from service.search import Searcher
from service.settings import Settings
from tests.service.small_gallery import CLUSTERS, PHOTOS, draw_sketch

GROUPS = GroupCounts(4, 3)


@pytest.fixture(scope="module")
def pooled_path(gallery: Path, matcher: Matcher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pooled") / "index"
    build([gallery], path, matcher, clusters=CLUSTERS, groups=GROUPS)
    return path


@pytest.fixture(scope="module")
def pooled_index(pooled_path: Path, matcher: Matcher) -> Iterator[Index]:
    with open_index(pooled_path, matcher) as index:
        yield index


@pytest.fixture(scope="module")
def searcher(pooled_index: Index, matcher: Matcher) -> Searcher:
    return Searcher(pooled_index, matcher)


def test_sketches_are_pooled_as_the_index_is_and_scored_by_pooled_tokens(searcher: Searcher, matcher: Matcher) -> None:
    pooling = matcher.with_groups(GROUPS)
    sketch = pooling.encode(pooling.prepare(draw_sketch(), "sketch")[None], "sketch")
    photos = searcher.scorer.tokens(np.arange(PHOTOS))
    assert (sketch.features.shape[1], photos.features.shape[1]) == (5, 4)
    expected = dict(zip(searcher.index.ids.tolist(), pooling.scores(sketch, photos, "rn")[0].tolist(), strict=True))
    found = searcher.search(draw_sketch(), SearchQuery(method="rn", nprobe="all", k=PHOTOS))
    assert {hit.id: pytest.approx(hit.score) for hit in found.results} == expected
    assert [hit.score for hit in found.results] == sorted(expected.values(), reverse=True)


def test_who_asks_what_is_loaded_hears_that_tokens_are_pooled(
    pooled_path: Path, weights: Path, matcher: Matcher
) -> None:
    with closing(Engine(Settings(index=pooled_path, weights=weights), matcher)) as engine:
        _, index = engine.info()
    assert (index.tokens, index.pooled) == (4, "4/3")


def test_clusters_are_chosen_by_their_pooled_tokens(searcher: Searcher, matcher: Matcher) -> None:
    found = searcher.search(draw_sketch(), SearchQuery(method="rn", nprobe=2, k=1))
    assert len(found.clusters) == 2
    sketch = matcher.with_groups(GROUPS).encode(matcher.prepare(draw_sketch(), "sketch")[None], "sketch")
    scores = matcher.scores(sketch, searcher.index.centroids, "rn")[0]
    assert [cluster.id for cluster in found.clusters] == scores.topk(2).indices.tolist()


def test_near_duplicates_and_kinds_are_found_among_pooled_photos(searcher: Searcher) -> None:
    found = searcher.search(draw_sketch(), SearchQuery(fold=True, k=PHOTOS))
    assert len(found.results) <= PHOTOS


@pytest.mark.parametrize("rebuild", ["photos", "gallery"])
def test_explanations_point_at_true_patches(rebuild: str, searcher: Searcher, matcher: Matcher) -> None:
    pixels = matcher.preprocessing.pixels(draw_sketch(), "sketch")
    asked = ExplainParams.model_validate({"photo": [5, 9], "rebuild": rebuild})
    found = explain(searcher, pixels, asked, originals=True)
    for shown in found.photos:
        assert shown.photo_cells == shown.kept[-1]
        assert shown.sketch_cells == found.sketch.kept[-1]
        assert {match.photo_cell for match in shown.matches} <= set(shown.photo_cells)
        assert len(np.unique(torch.tensor(shown.correspondence).numpy(), axis=1).T) <= 3
    assert len(found.rebuilt) == (3 if rebuild == "photos" else 1)
