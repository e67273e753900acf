"""Searches with photos as part of the query: liked ones lead, unliked ones leave with their kind."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from indexer import Index, UnknownPhoto, open_index, remove
from model.ranking import likeness_to
from service.errors import BadSearch
from service.schemas import SearchResult
from tests.searching import Searcher, mean_direction, searching
from tests.service.small_gallery import PHOTOS


@pytest.fixture
def searcher(either: Searcher) -> Searcher:
    return either


def ids(hits: tuple[SearchResult, ...]) -> list[int]:
    return [hit.id for hit in hits]


# With liked photos, and with none of them.
_LED: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {},
        {"method": "ret"},
        {"nprobe": 2},
        {"nprobe": 1},
        {"nprobe": 2, "budget_ms": 1e-6},
        {"budget_ms": 1e-6},
    ]
)
_DRAWN: st.SearchStrategy[dict[str, Any]] = st.one_of(
    _LED,
    st.sampled_from(
        [{"method": "rn", "rerank": 3}, {"rerank": 3}, {"method": "rn", "nprobe": "all"}, {"method": "rn"}]
    ),
)


@settings(max_examples=60, deadline=None)
@given(drawn=st.booleans(), data=st.data())
def test_liked_photos_lead_and_unliked_ones_are_gone_however_the_others_are_ranked(
    searcher: Searcher, drawn: bool, data: st.DataObject
) -> None:
    every = searcher.index.ids.tolist()
    named = data.draw(st.lists(st.sampled_from(every), min_size=1, max_size=6, unique=True))
    liked = named[: data.draw(st.integers(0 if drawn else 1, len(named)))]
    unliked = named[len(liked) :]
    way = data.draw(_LED if liked else _DRAWN)
    found = searcher.find_sketch(drawn, like=liked, unlike=unliked, **way)
    ranked = ids(found.results)
    assert ranked[: len(liked)] == sorted(liked)
    assert not set(ranked) & searcher.leaving(unliked, liked)
    assert len(set(ranked)) == len(ranked) == found.candidates
    scores = [hit.raw_score for hit in found.results]
    assert scores == sorted(scores, reverse=True)
    assert [hit.rank for hit in found.results] == list(range(1, len(ranked) + 1))
    if not way:
        assert set(ranked) == set(every) - searcher.leaving(unliked, liked)


@pytest.mark.parametrize("drawn", [True, False])
def test_photos_that_look_like_a_liked_one_come_before_the_others(searcher: Searcher, drawn: bool) -> None:
    first, *_, last = ids(searcher.find_sketch().results)
    index = searcher.index
    vectors = index.vectors.of()
    likeness = likeness_to(vectors[index.ids == last], vectors, mean_direction(vectors))
    nearest = int(index.ids[int(likeness.argsort(descending=True)[1])])
    before = ids(searcher.find_sketch().results).index(nearest)
    after = ids(searcher.find_sketch(drawn, like=[last]).results)
    assert after[0] == last
    assert after.index(nearest) < max(before, 6)
    assert first in after


def test_the_order_and_number_of_times_in_which_photos_are_named_changes_nothing(searcher: Searcher) -> None:
    a, b, c, d = searcher.index.ids.tolist()[:4]
    one = searcher.find_sketch(like=[a, b], unlike=[c, d])
    other = searcher.find_sketch(like=[b, a, b], unlike=[d, c, d, d])
    assert (one.results, one.candidates) == (other.results, other.candidates)


def copies(index: Index) -> tuple[int, int]:
    """Two ids of one photo: those of files with the same bytes."""
    shown = set(index.ids.tolist())
    for photo in range(1, max(shown) + 3):
        if photo not in shown and (entry := index.photo(photo)):
            return entry.id, photo
    raise AssertionError("no photo has two files")


def test_a_photo_goes_by_each_of_its_ids(searcher: Searcher) -> None:
    shown, copy = copies(searcher.index)
    assert searcher.find_sketch(like=[copy]).results == searcher.find_sketch(like=[shown]).results
    assert searcher.find_sketch(like=[copy, shown]).results == searcher.find_sketch(like=[shown]).results
    with pytest.raises(BadSearch, match=f"the same photo, {shown}"):
        searcher.find_sketch(like=[copy], unlike=[shown])


def test_the_liked_photos_alone_are_a_query(searcher: Searcher) -> None:
    liked = searcher.index.ids.tolist()[7]
    found = searcher.find_sketch(False, like=[liked])
    assert (found.method, found.quality, found.rerank) == ("ret", "good", None)
    assert len(found.results) == PHOTOS
    assert found.results == searcher.find_sketch(False, like=[liked], method="ret", diffuse=found.diffused).results


@pytest.mark.parametrize(
    ("drawn", "asked", "sentence"),
    [
        (False, {"unlike": [1]}, "nothing to search by"),
        (True, {"like": [1], "method": "rn"}, "not by method 'rn'"),
        (True, {"like": [1], "rerank": 4}, "rerank counts photos for the relation network"),
        (False, {"kind": "photo"}, "nothing to search by"),
        (True, {"kind": "photo", "method": "rn"}, r"^Photos are compared by \[Ret\], not by method 'rn'"),
        (True, {"kind": "photo", "rerank": 3}, "rerank counts photos for the relation network"),
    ],
)
def test_what_liked_photos_and_uploaded_ones_cannot_have_is_refused(
    searcher: Searcher, drawn: bool, asked: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(BadSearch, match=sentence):
        searcher.find_sketch(drawn, **asked)


def test_a_photo_that_was_taken_out_is_no_part_of_a_query(tmp_path: Path, gallery: Path) -> None:
    photos = Path(shutil.copytree(gallery, tmp_path / "photos"))
    with searching(photos, tmp_path) as before:
        removed = before.index.photo_at("p01.png").id
    remove(["p01.png"], tmp_path / "index")
    with open_index(tmp_path / "index", before.matcher) as index:
        searcher = Searcher(index, before.matcher)
        for like, unlike in (([removed], []), ([], [removed])):
            with pytest.raises(UnknownPhoto):
                searcher.find_sketch(like=like, unlike=unlike)


@pytest.mark.parametrize("way", [{}, {"nprobe": 1}, {"method": "ret"}, {"view": "kinds"}])
def test_an_uploaded_photo_finds_what_the_same_photo_finds_if_it_is_liked(
    searcher: Searcher, way: dict[str, Any]
) -> None:
    for photo in searcher.index.ids.tolist()[:3]:
        image = Image.open(io.BytesIO(searcher.index.open_photo(photo)))
        uploaded, liked = searcher.find(image, kind="photo", **way), searcher.find_sketch(False, like=[photo], **way)
        best = uploaded.results if uploaded.kinds is None else tuple(kind.best for kind in uploaded.kinds)
        assert best[0].id == photo
        assert (uploaded.method, uploaded.candidates) == ("ret", liked.candidates)
        assert set(ids(uploaded.results)) == set(ids(liked.results))


def test_an_uploaded_photo_goes_with_liked_and_unliked_ones(searcher: Searcher) -> None:
    first, second, third, *_ = searcher.index.ids.tolist()
    image = Image.open(io.BytesIO(searcher.index.open_photo(first)))
    found = ids(searcher.find(image, kind="photo", like=[second], unlike=[third]).results)
    assert found[0] == second
    assert third not in found
    # A photo stays if it looks more like a liked one, and so it does if that one was uploaded.
    assert first in found


@pytest.mark.parametrize("image", [Image.new("RGB", (40, 30), "white"), Image.new("RGB", (1, 1))], ids=["white", "dot"])
def test_a_photo_may_be_blank(searcher: Searcher, image: Image.Image) -> None:
    assert len(searcher.find(image, kind="photo").results) == PHOTOS
