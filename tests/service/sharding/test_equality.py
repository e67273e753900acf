"""A gallery in shards gets the answers of one index of all its photos, however they are divided."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketch_search.service.schemas.query import TunedQuery
from sketch_search.service.schemas.search import SearchResponse
from tests.searching import PictureSearcher, Searcher, searching
from tests.service.sharding.shards_here import NEARLY, LocalLink, assert_same, cut, links_to, searcher_of
from tests.service.small_gallery import CLUSTERS, PHOTOS, draw_photo, draw_sketch

Divide = Callable[[Sequence[int]], list[LocalLink]]

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
    "in groups": {"view": "groups"},
    "in the view that suits": {"view": "auto"},
    "folded": {"fold": True},
}
WITHOUT_SKETCH: dict[str, dict[str, Any]] = {
    "a word alone": {"text": "leaf"},
    "a liked photo": {"like": (4, 6)},
    "a word and a liked photo": {"text": "cat", "like": (11,)},
}
BY_PHOTO: dict[str, dict[str, Any]] = {"a photo": {"kind": "photo"}}
BY_CLUSTERS: list[dict[str, Any]] = [{"nprobe": 2}, {"nprobe": 2, "rerank": 4}, {"nprobe": 2, "method": "ret"}]
BY_CLUSTERS += [{"nprobe": 1, "text": "cat"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("whole")


@pytest.fixture(scope="module")
def whole(folder: Path, gallery: Path) -> Iterator[Searcher]:
    with searching(gallery, folder, words=(("dog",), ("cat",), ("leaf",)), diffusion=0.2) as searcher:
        yield searcher


@pytest.fixture(scope="module")
def divide(folder: Path, whole: Searcher, tmp_path_factory: pytest.TempPathFactory) -> Divide:
    matcher = whole.matcher
    return lambda parts: links_to(cut(folder / "index", matcher, tmp_path_factory.mktemp("shards"), parts), matcher)


@pytest.fixture(scope="module")
def quarters(divide: Divide) -> list[LocalLink]:
    return divide([photo % 4 for photo in range(PHOTOS)])


@pytest.fixture(autouse=True)
def nothing_asked_yet(quarters: list[LocalLink]) -> None:
    for link in quarters:
        link.asked.clear()
        link.lies.clear()


@pytest.fixture(autouse=True, scope="module")
def few_are_enough() -> Iterator[None]:
    """Shards choose fewer photos than they have, as those of large galleries do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sketch_search.model.search.stages.SHORTLIST", 9)
        patch.setattr("sketch_search.model.search.candidates.NEAREST", 5)
        yield


def answers_of(searcher: PictureSearcher) -> dict[str, SearchResponse]:
    return {
        name: searcher.search(picture, TunedQuery(**{"k": PHOTOS, **asked}))
        for picture, queries in ((draw_sketch(), QUERIES), (draw_photo(3), BY_PHOTO), (None, WITHOUT_SKETCH))
        for name, asked in queries.items()
    }


@pytest.fixture(scope="module")
def expected(whole: Searcher) -> dict[str, SearchResponse]:
    return answers_of(whole)


@settings(max_examples=3)
@given(shards=st.lists(st.integers(0, 3), min_size=PHOTOS, max_size=PHOTOS))
def test_every_query_gets_the_answer_of_one_index_whatever_shards_the_photos_are_in(
    divide: Divide, whole: Searcher, expected: dict[str, SearchResponse], shards: list[int]
) -> None:
    for name, found in answers_of(searcher_of(divide(shards), whole.matcher)).items():
        assert_same(found, expected[name])


@settings(max_examples=2)
@given(shards=st.lists(st.integers(0, 2), min_size=CLUSTERS, max_size=CLUSTERS))
def test_clusters_choose_the_same_photos_in_shards(divide: Divide, whole: Searcher, shards: list[int]) -> None:
    clusters = np.searchsorted(np.cumsum(whole.index.cluster_sizes), np.arange(PHOTOS), side="right")
    links = divide(np.array(shards)[clusters[whole.index.ids.argsort()]].tolist())
    for asked in BY_CLUSTERS:
        query = TunedQuery.model_validate({"k": 4, **asked})
        found, expected = (one.search(draw_sketch(), query) for one in (searcher_of(links, whole.matcher), whole))
        assert_same(found, expected)
        assert [cluster.score for cluster in found.clusters] == pytest.approx(
            [cluster.score for cluster in expected.clusters], abs=NEARLY
        )
