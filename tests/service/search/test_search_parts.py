import io
import os
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from sketch_search.indexer import Index, PhotoFilter
from sketch_search.service.errors import BadSearch
from sketch_search.service.gallery import LocalGallery
from sketch_search.service.schemas.search import SearchResult
from tests.pictures import encoded
from tests.searching import Searcher, searching
from tests.service.small_gallery import PHOTOS, draw_photo


@pytest.fixture
def searcher(either: Searcher) -> Searcher:
    return either


def ids(hits: tuple[SearchResult, ...]) -> list[int]:
    return [hit.id for hit in hits]


def test_a_photo_goes_by_each_of_its_ids(searcher: Searcher) -> None:
    index = searcher.index
    shown = index.photo_at("again.png").id
    copy = next(photo for photo in range(1, PHOTOS + 3) if photo != shown and index.photo(photo).id == shown)
    assert searcher.find_sketch(like=[copy]).results == searcher.find_sketch(like=[shown]).results
    assert searcher.find_sketch(like=[copy, shown]).results == searcher.find_sketch(like=[shown]).results
    with pytest.raises(BadSearch, match=f"the same photo, {shown}"):
        searcher.find_sketch(like=[copy], unlike=[shown])


@pytest.mark.parametrize("way", [{}, {"nprobe": 1}, {"method": "ret"}, {"view": "groups"}])
def test_an_uploaded_photo_finds_what_it_finds_if_it_is_liked(searcher: Searcher, way: dict[str, Any]) -> None:
    for photo in searcher.index.ids.tolist()[:3]:
        image = Image.open(io.BytesIO(searcher.index.open_photo(photo).whole()))
        uploaded, liked = searcher.find(image, kind="photo", **way), searcher.find_sketch(False, like=[photo], **way)
        best = uploaded.results if uploaded.groups is None else tuple(kind.best for kind in uploaded.groups)
        assert best[0].id == photo
        assert (uploaded.method, uploaded.candidates) == ("ret", liked.candidates)
        assert set(ids(uploaded.results)) == set(ids(liked.results))


FIRST = date(2023, 12, 30)
# Photos by path; two of equal number have equal bytes, and each was changed so many days after the first. None of them
# says when it was taken.
FILES = {
    "a.png": (0, 0),
    "0trip/b.png": (1, 0),
    "0trip/summer/c.png": (2, 1),
    "0trip/summer/a again.png": (0, 3),
    "0trip more/d.png": (3, 1),
    "0trip.png/e.png": (4, 2),
    "größe_%/f.png": (5, 2),
    "größe_%/g.png": (6, 3),
}
FOLDERS = [".", "0trip/.", "0trip", "0trip/summer", "0trip more", "größe_%", "0trip.png", "0tri", "nowhere", "a.png"]
FOLDERS += ["0trip/sum*", "' OR 1"]
FILTERED = len({number for number, _ in FILES.values()})


@pytest.fixture(scope="module")
def filtered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searcher]:
    folder = tmp_path_factory.mktemp("filters")
    for path, (number, days) in FILES.items():
        file = folder / "photos" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(draw_photo(number)))
        at = time(23, 59, 59) if number % 2 else time(0)
        changed = datetime.combine(FIRST + timedelta(days), at).timestamp()
        os.utime(file, (changed, changed))
    with searching(folder / "photos", folder, clusters=3, diffusion=0.2) as opened:
        yield opened


def expected(index: Index, folders: tuple[str, ...], after: date | None, before: date | None) -> set[int]:
    """Returns the ids of the photos that pass, by what this module knows of their files."""
    passing = set()
    for path, (_, days) in FILES.items():
        day = FIRST + timedelta(days)
        itself = f"{path.rpartition('/')[0]}/.".lstrip("/")
        below = not folders or itself in folders or any(path.startswith(f"{folder}/") for folder in folders)
        if below and (after is None or day >= after) and (before is None or day <= before):
            passing.add(index.photo_at(path).id)
    return passing


_DAYS = st.none() | st.integers(-1, 4).map(lambda days: FIRST + timedelta(days))
_WAYS: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{}, {"method": "ret"}, {"nprobe": 2}, {"nprobe": 1}, {"nprobe": "all"}]
)


@settings(max_examples=30)
@given(
    folders=st.lists(st.sampled_from(FOLDERS), max_size=2).map(tuple),
    days=st.tuples(_DAYS, _DAYS),
    way=_WAYS,
    liked=st.none() | st.sampled_from(list(FILES)),
    drawn=st.booleans(),
)
# Of one photo, a file is in this folder and another was changed on this day.
@example(folders=("0trip/summer",), days=(None, FIRST), way={}, liked=None, drawn=True)
def test_only_photos_that_pass_are_found_however_they_are_ranked(
    filtered: Searcher,
    folders: tuple[str, ...],
    days: tuple[date | None, date | None],
    way: dict[str, Any],
    liked: str | None,
    drawn: bool,
) -> None:
    after, before = days
    if after is not None and before is not None and after > before:
        after, before = before, after
    wanted = expected(filtered.index, folders, after, before)
    like = [] if liked is None else [filtered.index.photo_at(liked).id]
    outcome = filtered.find_sketch(drawn or liked is None, folder=folders, after=after, before=before, like=like, **way)
    assert set(ids(outcome.results)) == wanted
    assert len(outcome.results) == outcome.candidates
    assert wanted or not outcome.clusters
    assert sum(cluster.size for cluster in outcome.clusters) <= max(len(wanted), FILTERED)
    if like and like[0] in wanted:
        assert outcome.results[0].id == like[0]


@pytest.mark.parametrize(
    ("asked", "numbers"),
    [
        # The first photo is another photo's copy of three days later; of one day the last change comes first.
        ({"after": FIRST}, [0, 6, 5, 4, 3, 2, 1]),
        ({"before": FIRST + timedelta(1)}, [3, 2, 1, 0]),
        ({"folder": ("0trip",)}, [0, 2, 1]),
        ({"folder": ("0trip/.", ".")}, [1, 0]),
        ({"folder": ("0trip", "0trip more"), "k": 2, "offset": 1}, [3, 2]),
        ({"folder": ("nowhere",)}, []),
    ],
)
def test_filters_alone_find_newest_first(filtered: Searcher, asked: dict[str, Any], numbers: list[int]) -> None:
    found = filtered.find(None, view="auto", **asked)
    shown = [next(number for path, (number, _) in FILES.items() if path in hit.paths) for hit in found.results]
    assert shown == numbers
    assert [hit.rank for hit in found.results] == [asked.get("offset", 0) + place for place in range(1, len(shown) + 1)]
    assert (found.method, found.view) == ("date", "photos")
    assert found.candidates == len(numbers) + (2 if "k" in asked else 0)
    with pytest.raises(BadSearch, match="The query is empty"):
        filtered.find(None, unlike=[filtered.index.ids[0].item()], **asked)


def test_further_pages_of_a_filter_read_nothing_again(filtered: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, wanted = LocalGallery(filtered.index, filtered.matcher), PhotoFilter(after=FIRST)
    first, days, count = gallery.newest(wanted, 2)
    assert (len(first), count) == (2, 7)
    monkeypatch.setattr(filtered.index, "_catalog", None)
    further, all_days, _ = gallery.newest(wanted, 5)
    assert (further[:2].tolist(), all_days[:2].tolist()) == (first.tolist(), days.tolist())
    assert len({*further.tolist()}) == 5
