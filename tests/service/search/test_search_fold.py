"""Searches whose near duplicates are one result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.schemas import SearchResult
from service.search import shown
from service.search.plan import GROUPED
from tests.searching import Searcher, searching
from tests.service.small_gallery import save_copy

# So many files of each picture: the same pixels in files that differ, so that each is a photo.
FILES = [1, 4, 1, 2, 3, 1, 1, 5, 2, 1]
PHOTOS = sum(FILES)


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searcher]:
    folder = tmp_path_factory.mktemp("fold")
    for picture, count in enumerate(FILES):
        for number in range(count):
            save_copy(folder / "photos" / str(number) / f"{picture}.png", picture, number)
    with (
        searching(folder / "photos", folder, clusters=3, diffusion=0.2) as opened,
        pytest.MonkeyPatch.context() as patch,
    ):
        # To a network with random weights, all pictures are much the same.
        patch.setattr(shown, "SAME", 0.9999)
        yield opened


def picture(searcher: Searcher, photo: int) -> str:
    """Which picture a photo is of."""
    return searcher.index.photo(photo).paths[0].split("/")[1]


def copies(hit: SearchResult) -> tuple[int, ...]:
    assert hit.copies is not None
    return hit.copies


WAYS: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {},
        {"method": "ret"},
        {"method": "rn", "diffuse": False},
        {"nprobe": 2},
        {"nprobe": 1},
        {"nprobe": "all"},
        {"rerank": 3},
        {"nprobe": 1, "rerank": 2, "method": "rn"},
        {"budget_ms": 1e-6},
        {"folder": ["0", "2"]},
    ]
)


@settings(max_examples=40, deadline=None)
@given(way=WAYS, k=st.integers(1, PHOTOS), offset=st.integers(0, 12), liked=st.none() | st.integers(1, PHOTOS))
def test_every_picture_is_one_result_with_its_copies_in_the_order_of_the_ranking(
    searcher: Searcher, way: dict[str, Any], k: int, offset: int, liked: int | None
) -> None:
    if liked is not None and ("rerank" in way or way.get("method") == "rn"):
        way = {}
    like = [] if liked is None else [liked]
    folded = searcher.find_sketch(fold=True, k=k, offset=offset, like=like, **way)
    ids = [photo for hit in folded.results for photo in (hit.id, *copies(hit))]
    assert len(ids) == len(set(ids))
    shown = [picture(searcher, hit.id) for hit in folded.results]
    assert len(set(shown)) == len(shown)
    assert [hit.rank for hit in folded.results] == list(range(offset + 1, offset + 1 + len(shown)))
    for hit in folded.results:
        assert {picture(searcher, copy) for copy in copies(hit)} <= {picture(searcher, hit.id)}
    if "rerank" not in way and "budget_ms" not in way and "folder" not in way:
        # A page is as full as it can be.
        assert len(shown) == max(0, min(k, len(FILES) - offset))
    if like and offset == 0 and "folder" not in way:
        assert folded.results[0].id == like[0]


@pytest.mark.parametrize("way", [{}, {"method": "rn", "diffuse": False}, {"nprobe": "all"}])
def test_what_is_folded_is_what_is_ranked_without(searcher: Searcher, way: dict[str, Any]) -> None:
    ranked, folded = searcher.find_sketch(**way), searcher.find_sketch(fold=True, **way)
    assert all(hit.copies is None for hit in ranked.results)
    first: dict[str, list[int]] = {}
    for hit in ranked.results:
        first.setdefault(picture(searcher, hit.id), []).append(hit.id)
    assert [[hit.id, *copies(hit)] for hit in folded.results] == list(first.values())
    scores = {hit.id: hit.raw_score for hit in ranked.results}
    assert [hit.raw_score for hit in folded.results] == [scores[hit.id] for hit in folded.results]


@pytest.mark.parametrize("k", [1, 3, 7])
def test_pages_continue_the_results(searcher: Searcher, k: int) -> None:
    whole = searcher.find_sketch(fold=True).results
    pages = [searcher.find_sketch(fold=True, k=k, offset=offset).results for offset in range(0, len(FILES) + k, k)]
    assert tuple(hit for page in pages for hit in page) == whole


def test_a_page_is_full_where_few_photos_would_have_been_ranked_for_it(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {"k": 4, "nprobe": 1, "diffuse": False, "method": "rn"}
    short = searcher.find_sketch(**asked)
    assert short.candidates < PHOTOS
    assert len(searcher.find_sketch(fold=True, **{**asked, "k": len(FILES)}).results) == len(FILES)
    # Beyond the photos that are folded, each is a result of its own.
    monkeypatch.setattr(shown, "FOLDED", 3)
    results = searcher.find_sketch(fold=True).results
    assert len(results) > len(FILES)
    assert all(hit.copies == () for hit in results[3:])


def test_a_limit_of_time_ends_the_search_however_few_results_there_are(searcher: Searcher) -> None:
    found = searcher.find_sketch(fold=True, budget_ms=1e-6, nprobe=1, k=PHOTOS)
    assert 0 < len(found.results) <= len(FILES)


def test_liked_photos_are_results_of_their_own_even_if_they_are_copies(searcher: Searcher) -> None:
    same = [hit for hit in searcher.find_sketch(fold=True).results if hit.copies]
    one = same[0]
    first, second, *others = sorted((one.id, *copies(one)))
    found = searcher.find_sketch(False, fold=True, like=[second, first]).results
    assert [hit.id for hit in found[:2]] == [first, second]
    assert sorted(photo for hit in found[:2] for photo in copies(hit)) == others


def test_kinds_are_made_of_results(searcher: Searcher) -> None:
    found = searcher.find_sketch(fold=True, view="kinds", k=GROUPED).kinds or ()
    assert sum(kind.size for kind in found) == len(FILES)
    shown = [hit for kind in found for hit in (kind.best, *kind.more)]
    assert sum(1 + len(copies(hit)) for hit in shown) <= PHOTOS
    assert any(hit.copies for hit in shown)


def test_only_an_answer_that_was_folded_has_copies(searcher: Searcher) -> None:
    for fold in (False, True):
        answer = searcher.find_sketch(fold=fold).model_dump()
        assert {("copies" in result) for result in answer["results"]} == {fold}
