"""Searches of which filters leave some photos: by folder, and by day."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import model
from indexer import Index, build, open_index
from service.schemas import SearchResponse
from tests.networks import tiny_checkpoint
from tests.pictures import encoded
from tests.searching import Searcher, searching
from tests.service.small_gallery import draw_photo

FIRST = date(2023, 12, 30)
# Photos by path; two of equal number have equal bytes, and each was changed so many days after the first. None of them
# says when it was taken.
FILES = {
    "a.png": (0, 0),
    "2023/b.png": (1, 0),
    "2023/summer/c.png": (2, 1),
    "2023/summer/a again.png": (0, 3),
    "2023 more/d.png": (3, 1),
    "2023.png/e.png": (4, 2),
    "größe_%/f.png": (5, 2),
    "größe_%/g.png": (6, 3),
}
FOLDERS = ("2023", "2023/summer", "2023 more", "größe_%", "2023.png", "202", "nowhere", "a.png", "2023/sum*", "' OR 1")
PHOTOS = len({number for number, _ in FILES.values()})


def write_gallery(root: Path) -> Path:
    for path, (number, days) in FILES.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(draw_photo(number)))
        # The last second of one day, or the first of another.
        at = time(23, 59, 59) if number % 2 else time(0)
        changed = datetime.combine(FIRST + timedelta(days), at).timestamp()
        os.utime(file, (changed, changed))
    return root


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searcher]:
    folder = tmp_path_factory.mktemp("filters")
    with searching(write_gallery(folder / "photos"), folder, clusters=3, diffusion=0.2) as opened:
        yield opened


def found(outcome: SearchResponse) -> set[int]:
    return {hit.id for hit in outcome.results}


def expected(index: Index, folders: tuple[str, ...], after: date | None, before: date | None) -> set[int]:
    """The ids of the photos that pass, by what this module knows of their files."""
    passing = set()
    for path, (_, days) in FILES.items():
        day = FIRST + timedelta(days)
        below = not folders or any(path.startswith(f"{folder}/") for folder in folders)
        if below and (after is None or day >= after) and (before is None or day <= before):
            passing.add(index.photo_at(path).id)
    return passing


_DAYS = st.none() | st.integers(-1, 4).map(lambda days: FIRST + timedelta(days))
_WAYS: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{}, {"method": "ret"}, {"nprobe": 2}, {"nprobe": 1}, {"nprobe": "all"}, {"budget_ms": 1e-6}]
)


@settings(max_examples=50, deadline=None)
@given(
    folders=st.lists(st.sampled_from(FOLDERS), max_size=2).map(tuple),
    days=st.tuples(_DAYS, _DAYS),
    way=_WAYS,
    liked=st.none() | st.sampled_from(list(FILES)),
    drawn=st.booleans(),
)
def test_only_photos_that_pass_are_found_however_they_are_ranked(
    searcher: Searcher,
    folders: tuple[str, ...],
    days: tuple[date | None, date | None],
    way: dict[str, Any],
    liked: str | None,
    drawn: bool,
) -> None:
    after, before = days
    if after is not None and before is not None and after > before:
        after, before = before, after
    wanted = expected(searcher.index, folders, after, before)
    like = [] if liked is None else [searcher.index.photo_at(liked).id]
    outcome = searcher.find_sketch(drawn or liked is None, folder=folders, after=after, before=before, like=like, **way)
    assert found(outcome) <= wanted
    assert len(outcome.results) == outcome.candidates
    assert sum(cluster.size for cluster in outcome.clusters) <= max(len(wanted), PHOTOS)
    if like and like[0] in wanted:
        assert outcome.results[0].id == like[0]
    if way.get("budget_ms") is None:
        assert found(outcome) == wanted


@pytest.mark.parametrize("view", ["photos", "kinds", "auto"])
@pytest.mark.parametrize("drawn", [True, False])
def test_a_filter_that_leaves_nothing_gives_no_results(searcher: Searcher, view: str, drawn: bool) -> None:
    for way in ({}, {"nprobe": 2}, {"diffuse": False}):
        outcome = searcher.find_sketch(drawn, folder=["nowhere"], like=[1], view=view, **way)
        assert (outcome.results, outcome.kinds or (), outcome.clusters, outcome.candidates) == ((), (), (), 0)
    assert searcher.find_sketch(folder=["nowhere"], view=view, method="rn").candidates == 0


def test_one_file_has_to_pass_all_filters(searcher: Searcher) -> None:
    # The photo is in this folder, and a file of it was changed on this day: two different ones.
    assert searcher.index.photo_at("2023/summer/a again.png").id not in found(
        searcher.find_sketch(folder=["2023/summer"], before=FIRST)
    )


def test_a_liked_photo_that_a_filter_leaves_out_leads_all_the_same(searcher: Searcher) -> None:
    liked = searcher.index.photo_at("2023/b.png").id
    order = [hit.id for hit in searcher.find_sketch(False, like=[liked]).results]
    passing = expected(searcher.index, ("größe_%", "2023 more"), None, None)
    outcome = searcher.find_sketch(False, like=[liked], folder=["größe_%", "2023 more"], diffuse=False)
    assert liked in order
    assert found(outcome) == passing


def test_a_folder_is_found_whether_its_accents_are_composed_or_not(tmp_path: Path) -> None:
    composed, decomposed = "größe/ä.png", unicodedata.normalize("NFD", "zürich/ö.png")
    for number, path in enumerate((composed, decomposed)):
        (tmp_path / "photos" / path).parent.mkdir(parents=True)
        (tmp_path / "photos" / path).write_bytes(encoded(draw_photo(number)))
    with searching(tmp_path / "photos", tmp_path, clusters=1) as searcher:
        for form in ("NFC", "NFD"):
            for folder, path in (("größe", composed), ("zürich", decomposed)):
                outcome = searcher.find_sketch(folder=[unicodedata.normalize(form, folder)])
                assert [hit.paths for hit in outcome.results] == [(path,)]


def test_folders_of_several_roots_begin_with_the_name_of_theirs(tmp_path: Path) -> None:
    matcher = model.load(tiny_checkpoint(tmp_path / "tiny.safetensors"), dtype=torch.float32)
    for name, numbers in (("one", (0, 1)), ("two", (1, 2))):
        for number in numbers:
            file = tmp_path / name / "inside" / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encoded(draw_photo(number)))
    build([tmp_path / "one", tmp_path / "two"], tmp_path / "index", matcher, clusters=1, embedder="ret")
    with open_index(tmp_path / "index", matcher) as index:
        searcher = Searcher(index, matcher)
        for folders, paths in (
            (["one"], {"one/inside/0.png", "one/inside/1.png"}),
            (["two/inside/"], {"one/inside/1.png", "two/inside/2.png"}),
            (["inside"], set()),
            (["two", "one/inside"], {"one/inside/0.png", "one/inside/1.png", "two/inside/2.png"}),
        ):
            assert {hit.paths[0] for hit in searcher.find_sketch(folder=folders).results} == paths
