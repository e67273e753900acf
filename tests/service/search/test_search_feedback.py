"""Searches with photos as part of the query: liked ones lead, unliked ones leave with their kind."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import model
from indexer import Index, UnknownPhoto, build, open_index, remove
from model.ranking import Likeness
from service.errors import BadSearch
from service.schemas import SearchQuery, SearchResponse, SearchResult
from tests.networks import tiny_checkpoint
from tests.searching import Searcher
from tests.service.small_gallery import CLUSTERS, PHOTOS, draw_sketch


@pytest.fixture(scope="module", params=[0.2, None], ids=["diffusing", "plain"])
def searcher(
    tmp_path_factory: pytest.TempPathFactory, gallery: Path, request: pytest.FixtureRequest
) -> Iterator[Searcher]:
    """By a checkpoint that can diffuse, as the default one does, and by one that cannot."""
    folder = tmp_path_factory.mktemp("feedback")
    matcher = model.load(tiny_checkpoint(folder / "tiny.safetensors", diffusion=request.param), dtype=torch.float32)
    build([gallery], folder / "index", matcher, clusters=CLUSTERS, embedder="ret")
    with open_index(folder / "index", matcher) as index:
        yield Searcher(index, matcher)


def find(searcher: Searcher, drawn: bool = True, **asked: Any) -> SearchResponse:
    return searcher.search(draw_sketch() if drawn else None, SearchQuery(**{"k": PHOTOS, **asked}))


def leaving(searcher: Searcher, unliked: list[int], liked: list[int]) -> set[int]:
    """The ids of the photos that are to leave."""
    index = searcher.index
    places = {photo: place for place, photo in enumerate(index.ids.tolist())}
    gone = Likeness(index.vectors.of()).leaving(
        torch.tensor([places[photo] for photo in unliked], dtype=torch.int64),
        torch.tensor([places[photo] for photo in liked], dtype=torch.int64),
    )
    return set(index.ids[gone.numpy()].tolist())


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
    found = find(searcher, drawn, like=liked, unlike=unliked, **way)
    ranked = ids(found.results)
    assert ranked[: len(liked)] == sorted(liked)
    assert not set(ranked) & leaving(searcher, unliked, liked)
    assert len(set(ranked)) == len(ranked) == found.candidates
    scores = [hit.raw_score for hit in found.results]
    assert scores == sorted(scores, reverse=True)
    assert [hit.rank for hit in found.results] == list(range(1, len(ranked) + 1))
    if not way:
        assert set(ranked) == set(every) - leaving(searcher, unliked, liked)


@pytest.mark.parametrize("drawn", [True, False])
def test_photos_that_look_like_a_liked_one_come_before_the_others(searcher: Searcher, drawn: bool) -> None:
    first, *_, last = ids(find(searcher).results)
    index = searcher.index
    likeness = Likeness(index.vectors.of()).to(torch.tensor([index.ids.tolist().index(last)]))
    nearest = int(index.ids[int(likeness.argsort(descending=True)[1])])
    before = ids(find(searcher).results).index(nearest)
    after = ids(find(searcher, drawn, like=[last]).results)
    assert after[0] == last
    assert after.index(nearest) < max(before, 6)
    assert first in after


def test_the_order_and_number_of_times_in_which_photos_are_named_changes_nothing(searcher: Searcher) -> None:
    a, b, c, d = searcher.index.ids.tolist()[:4]
    one = find(searcher, like=[a, b], unlike=[c, d])
    other = find(searcher, like=[b, a, b], unlike=[d, c, d, d])
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
    assert find(searcher, like=[copy]).results == find(searcher, like=[shown]).results
    assert find(searcher, like=[copy, shown]).results == find(searcher, like=[shown]).results
    with pytest.raises(BadSearch, match=f"the same photo, {shown}"):
        find(searcher, like=[copy], unlike=[shown])


def test_the_liked_photos_alone_are_a_query(searcher: Searcher) -> None:
    liked = searcher.index.ids.tolist()[7]
    found = find(searcher, drawn=False, like=[liked])
    assert (found.method, found.quality, found.rerank) == ("ret", "good", None)
    assert len(found.results) == PHOTOS
    assert found.results == find(searcher, drawn=False, like=[liked], method="ret", diffuse=found.diffused).results


@pytest.mark.parametrize(
    ("drawn", "asked", "sentence"),
    [
        (False, {}, "nothing to search by"),
        (False, {"unlike": [1]}, "nothing to search by"),
        (False, {"like": [1], "method": "rn"}, "not by method 'rn'"),
        (True, {"like": [1], "method": "rn"}, "not by method 'rn'"),
        (True, {"like": [1], "rerank": 4}, "rerank counts photos for the relation network"),
    ],
)
def test_what_liked_photos_cannot_have_is_refused(
    searcher: Searcher, drawn: bool, asked: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(BadSearch, match=sentence):
        find(searcher, drawn, **asked)


def test_a_photo_that_was_taken_out_is_no_part_of_a_query(tmp_path: Path, gallery: Path) -> None:
    shutil.copytree(gallery, tmp_path / "photos")
    matcher = model.load(tiny_checkpoint(tmp_path / "tiny.safetensors"), dtype=torch.float32)
    build([tmp_path / "photos"], tmp_path / "index", matcher, clusters=CLUSTERS, embedder="ret")
    remove(["p01.png"], tmp_path / "index")
    with open_index(tmp_path / "index", matcher) as index:
        searcher = Searcher(index, matcher)
        removed = next(photo for photo in range(1, PHOTOS + 3) if not _is_shown(index, photo))
        wrong: list[dict[str, Any]] = [{"like": [removed]}, {"unlike": [removed]}]
        for asked in wrong:
            with pytest.raises(UnknownPhoto):
                find(searcher, **asked)


def _is_shown(index: Index, photo: int) -> bool:
    try:
        index.photo(photo)
    except UnknownPhoto:
        return False
    return True


def with_photo(searcher: Searcher, photo: Image.Image, **asked: Any) -> SearchResponse:
    return searcher.search(photo, SearchQuery(**{"k": PHOTOS, "kind": "photo", **asked}))


@pytest.mark.parametrize("way", [{}, {"nprobe": 1}, {"method": "ret"}, {"view": "kinds"}])
def test_an_uploaded_photo_finds_what_the_same_photo_finds_if_it_is_liked(
    searcher: Searcher, way: dict[str, Any]
) -> None:
    for photo in searcher.index.ids.tolist()[:3]:
        image = Image.open(io.BytesIO(searcher.index.open_photo(photo)))
        uploaded, liked = with_photo(searcher, image, **way), find(searcher, False, like=[photo], **way)
        best = uploaded.results if uploaded.kinds is None else tuple(kind.best for kind in uploaded.kinds)
        assert best[0].id == photo
        assert (uploaded.method, uploaded.candidates) == ("ret", liked.candidates)
        assert set(ids(uploaded.results)) == set(ids(liked.results))


def test_an_uploaded_photo_goes_with_liked_and_unliked_ones(searcher: Searcher) -> None:
    first, second, third, *_ = searcher.index.ids.tolist()
    image = Image.open(io.BytesIO(searcher.index.open_photo(first)))
    found = ids(with_photo(searcher, image, like=[second], unlike=[third]).results)
    assert found[0] == second
    assert third not in found
    # A photo stays if it looks more like a liked one, and so it does if that one was uploaded.
    assert first in found


@pytest.mark.parametrize("image", [Image.new("RGB", (40, 30), "white"), Image.new("RGB", (1, 1))], ids=["white", "dot"])
def test_a_photo_may_be_blank(searcher: Searcher, image: Image.Image) -> None:
    assert len(with_photo(searcher, image).results) == PHOTOS


def test_photos_are_compared_by_ret_alone(searcher: Searcher) -> None:
    with pytest.raises(BadSearch, match=r"^Photos are compared by \[Ret\], not by method 'rn'"):
        with_photo(searcher, draw_sketch(), method="rn")
    with pytest.raises(BadSearch, match="rerank counts photos for the relation network"):
        with_photo(searcher, draw_sketch(), rerank=3)
    with pytest.raises(BadSearch, match="nothing to search by"):
        find(searcher, False, kind="photo")
