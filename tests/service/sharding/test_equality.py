"""A gallery in shards gets the answers of one index of all its photos, however they are divided."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import model
from indexer import Index, build, open_index
from model import Matcher
from service.explain.nearest import Surroundings
from service.schemas import SearchQuery, SearchResponse
from service.towers import ClipVectors, TextVector
from tests.networks import tiny_checkpoint
from tests.searching import Searcher
from tests.service.sharding.parts_of_index import gallery_of, searcher_of, shards_of
from tests.service.small_gallery import CLUSTERS, PHOTOS, draw_photo, draw_sketch

# Sums over all photos, as the mean [Ret], and over matrices of other shapes may differ in their last bits.
NEARLY = 2e-6

QUERIES: dict[str, dict[str, Any]] = {
    "a sketch": {},
    "a second page": {"k": 7, "offset": 7},
    "the best by [Ret]": {"method": "rn", "rerank": 5, "diffuse": False},
    "the best by [Ret], diffused": {"method": "rn", "rerank": 5, "diffuse": True},
    "by [Ret]": {"method": "ret"},
    "by [Ret], diffused": {"method": "ret", "diffuse": True},
    "every photo": {"nprobe": "all"},
    "in a folder": {"folder": ("größe",), "rerank": 3},
    "in a folder that is not there": {"folder": ("nowhere",)},
    "since a day": {"after": "1999-01-01", "rerank": 4},
    "with a liked photo": {"like": (3,), "k": 9},
    "without an unliked photo": {"unlike": (5,), "rerank": 6},
    "without one, by another": {"unlike": (5, 9), "like": (7,)},
    "with a word": {"text": "cat", "rerank": 4, "diffuse": False},
    "with a word, diffused": {"text": "cat", "rerank": 4},
    "a word and a filter": {"text": "leaf", "folder": ("größe",), "rerank": 2},
    "with all of it": {"text": "dog", "like": (2,), "unlike": (8,), "folder": ("größe",)},
    "in kinds": {"view": "kinds"},
    "in the view that suits": {"view": "auto"},
    "folded": {"fold": True},
    "in a hurry": {"budget_ms": 600_000, "rerank": 6},
}
WITHOUT_SKETCH: dict[str, dict[str, Any]] = {
    "a word": {"text": "leaf"},
    "a liked photo": {"like": (4, 6)},
    "a word and a liked photo": {"text": "cat", "like": (11,)},
}
BY_CLIP: tuple[dict[str, Any], ...] = (
    {"method": "clip"},
    {"method": "clip", "text": "any text"},
    {"method": "rn", "text": "any text", "rerank": 4},
)
BY_CLUSTERS: tuple[dict[str, Any], ...] = (
    {"nprobe": 2},
    {"nprobe": 2, "rerank": 4},
    {"nprobe": 1, "text": "cat"},
    {"nprobe": 2, "method": "ret"},
)


@pytest.fixture(scope="module")
def matcher(tmp_path_factory: pytest.TempPathFactory) -> Matcher:
    file = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    return model.load(tiny_checkpoint(file, words=(("dog",), ("cat",), ("leaf",)), diffusion=0.2), dtype=torch.float32)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, gallery: Path, matcher: Matcher) -> Iterator[Index]:
    folder = tmp_path_factory.mktemp("whole") / "index"
    build([gallery], folder, matcher, clusters=CLUSTERS, embedder="ret")
    with open_index(folder, matcher) as opened:
        # As if CLIP had made these vectors.
        opened.embeddings = opened.vectors
        yield opened


@pytest.fixture(scope="module")
def whole(index: Index, matcher: Matcher) -> Searcher:
    return Searcher(index, matcher)


@pytest.fixture(autouse=True, scope="module")
def few_are_enough() -> Iterator[None]:
    """Shards choose fewer photos than they have, as those of large galleries do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.search.plan.SHORTLIST", 9)
        patch.setattr("service.gallery.table.NEAREST", 5)
        yield


def partitions() -> st.SearchStrategy[list[int]]:
    """The shard of each photo."""
    return st.lists(st.integers(0, 3), min_size=PHOTOS, max_size=PHOTOS)


def parts(shards: list[int]) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
    return [np.flatnonzero(np.array(shards) == shard) for shard in range(max(shards) + 1)]


def assert_same(found: SearchResponse, expected: SearchResponse) -> None:
    """Ids and ranking are equal, and scores up to the last bits of sums; clusters are counted shard by shard."""
    assert [hit.id for hit in found.results] == [hit.id for hit in expected.results]
    # Squares, because a distance is a root: next to 0 it changes far more than what is under it.
    squares = [[hit.raw_score**2 for hit in outcome.results] for outcome in (found, expected)]
    assert squares[0] == pytest.approx(squares[1], abs=NEARLY)
    assert [(hit.rank, hit.paths, hit.copies) for hit in found.results] == [
        (hit.rank, hit.paths, hit.copies) for hit in expected.results
    ]
    kinds = [
        [(kind.best.id, kind.size, [hit.id for hit in kind.more]) for kind in outcome.kinds or ()]
        for outcome in (found, expected)
    ]
    assert kinds[0] == kinds[1]
    own: dict[str, Any] = {"results": (), "kinds": None, "clusters": (), "pairs_scored": 0}
    own |= {"timings_ms": expected.timings_ms, "generation": expected.generation}
    assert found.model_copy(update=own) == expected.model_copy(update=own)


@pytest.fixture(scope="module")
def answers(whole: Searcher) -> dict[str, SearchResponse]:
    """Of the one index."""
    return {name: whole.search(draw_sketch(), SearchQuery(**{"k": PHOTOS, **one})) for name, one in QUERIES.items()}


@settings(max_examples=3)
@given(shards=partitions())
def test_every_query_gets_the_answer_of_one_index_whatever_shards_the_photos_are_in(
    index: Index, matcher: Matcher, answers: dict[str, SearchResponse], shards: list[int]
) -> None:
    links = shards_of(index, matcher, parts(shards))
    for name, asked in QUERIES.items():
        found = searcher_of(links, matcher).search(draw_sketch(), SearchQuery(**{"k": PHOTOS, **asked}))
        assert_same(found, answers[name])


@settings(max_examples=2)
@given(shards=partitions(), seed=st.integers(0, 20))
def test_queries_without_a_sketch_or_by_clip_or_by_a_photo_do_too(
    index: Index, matcher: Matcher, whole: Searcher, shards: list[int], seed: int
) -> None:
    links = shards_of(index, matcher, parts(shards))
    for asked in WITHOUT_SKETCH.values():
        query = SearchQuery(**{"k": PHOTOS, **asked})
        assert_same(searcher_of(links, matcher).search(None, query), whole.search(None, query))
    photo = SearchQuery(k=PHOTOS, kind="photo")
    assert_same(searcher_of(links, matcher).search(draw_photo(seed), photo), whole.search(draw_photo(seed), photo))
    generator = np.random.default_rng(seed)
    text, drawn = (generator.normal(size=matcher.config.width).astype(np.float32) for _ in range(2))
    by_clip = ClipVectors(TextVector(text), drawn / np.linalg.norm(drawn))
    for asked in BY_CLIP:
        query = SearchQuery.model_validate({"k": PHOTOS, **asked})
        found = searcher_of(links, matcher).search(draw_sketch(), query, by_clip)
        assert_same(found, whole.search(draw_sketch(), query, by_clip))


@settings(max_examples=2)
@given(shards=st.lists(st.integers(0, 2), min_size=CLUSTERS, max_size=CLUSTERS))
def test_clusters_choose_the_same_photos_where_each_is_in_one_shard(
    index: Index, matcher: Matcher, whole: Searcher, shards: list[int]
) -> None:
    clusters = np.searchsorted(np.cumsum(index.cluster_sizes), np.arange(PHOTOS), side="right")
    links = shards_of(index, matcher, parts(np.array(shards)[clusters].tolist()))
    for asked in BY_CLUSTERS:
        query = SearchQuery.model_validate({"k": 4, **asked})
        found, expected = searcher_of(links, matcher).search(draw_sketch(), query), whole.search(draw_sketch(), query)
        assert_same(found, expected)
        assert [cluster.score for cluster in found.clusters] == pytest.approx(
            [cluster.score for cluster in expected.clusters], abs=NEARLY
        )


def test_the_photos_around_a_picture_are_those_of_one_index(index: Index, matcher: Matcher, whole: Searcher) -> None:
    links = shards_of(index, matcher, parts([0, 1, 2, 1] * 5 + [0, 1, 2]))
    sketch = matcher.encode(matcher.prepare(draw_sketch(), "sketch")[None], "sketch")
    photo = matcher.encode(matcher.prepare(draw_photo(3), "photo")[None], "photo")
    gallery = gallery_of(links)
    around, expected = (Surroundings(one, sketch, "sketch") for one in (gallery, whole.gallery))
    assert [near.id for near in around.of_given(6)] == [near.id for near in expected.of_given(6)]
    assert [near.id for near in around.of_photo(photo, 6)] == [near.id for near in expected.of_photo(photo, 6)]
    assert [around.rank(gallery.photo(n)) for n in (1, 5, 9)] == [expected.rank(index.photo(n)) for n in (1, 5, 9)]
    assert gallery.open_photo(5) == index.open_photo(5)
