import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sketch_search.indexer import BuildRequest, build, open_index
from sketch_search.indexer.samples import SKETCHED, draw_photo, draw_sketch
from sketch_search.model import Matcher
from sketch_search.model.images import open_image
from sketch_search.service.explain import explain, locate
from sketch_search.service.schemas.explain import ExplainParams, LocateParams
from tests.pictures import FOUR, difference, page, panorama
from tests.searching import Searcher
from tests.service.sharding.shards_here import cut, links_to, searcher_of

CASES = Path(__file__).parents[2] / "cases"
#: The pages and panoramas by their names, and the things that each is found by.
SHOWN = {
    "album.jpg": FOUR,
    "card.png": ("apple", "fish", "car"),
    "collage.png": ("house", "butterfly", "mushroom"),
    "panorama.jpg": ("umbrella",),
    "wide.png": ("cat", "guitar"),
    "around.png": ("bicycle",),
}
PHOTOS = 2 * len(SKETCHED) + len(SHOWN)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts") / "photos"
    folder.mkdir()
    for thing in SKETCHED:
        for number in (2, 3):
            draw_photo(thing, number).save(folder / f"{thing} {number}.png")
    shutil.copy(CASES / "58_photo_album_page.jpg", folder / "album.jpg")
    shutil.copy(CASES / "59_photo_panorama.jpg", folder / "panorama.jpg")
    page(("apple", "cup", "fish", "sailboat", "car", "cat"), 2, ground="#1a1a1c", tilt=1)[0].save(folder / "card.png")
    page(("house", "butterfly", "mushroom", "cup"), 2, ground="white", gap=6, margin=0)[0].save(folder / "collage.png")
    panorama(("house", "cat", "sailboat", "guitar", "cup")).save(folder / "wide.png")
    panorama(("house", "bicycle"), turned=100).save(folder / "around.png")
    return folder


@pytest.fixture(scope="module")
def searcher(photos: Path, default: Matcher) -> Iterator[Searcher]:
    index = photos.with_name("index")
    build(index, BuildRequest([photos]), default)
    with open_index(index, default) as opened:
        yield Searcher(opened, default)


def paths(searcher: Searcher, thing: str | None, **asked: Any) -> list[str]:
    picture = None if thing is None else draw_sketch(thing)
    return [result.paths[0] for result in searcher.find(picture, **{"k": PHOTOS, "view": "photos", **asked}).results]


@pytest.mark.parametrize(("name", "thing"), [(name, thing) for name, things in SHOWN.items() for thing in things])
def test_a_page_or_panorama_is_found_by_each_thing_that_a_part_shows(searcher: Searcher, name: str, thing: str) -> None:
    assert name in paths(searcher, thing)[:6]


@pytest.mark.parametrize(("things", "denied"), [(SKETCHED, False), (("duck", "star", "flower", "tree"), True)])
def test_who_draws_what_painted_photos_show_is_not_told_that_none_does(
    searcher: Searcher, things: tuple[str, ...], denied: bool
) -> None:
    asked: list[tuple[str, dict[str, Any]]] = [(thing, also) for thing in things for also in ({}, {"text": thing})]
    found = [searcher.find(draw_sketch(thing), **also) for thing, also in asked]
    told = [False in (answer.sketch_fits, answer.word_fits) for answer in found]
    assert any(told) == (denied and bool(searcher.matcher.calibration.shown)), "only fitted weights deny"


@pytest.mark.parametrize(
    "asked", [{}, {"nprobe": "all"}, {"method": "ret"}, {"system": "two-stage"}, {"text": "cat"}, {"quality": "fast"}]
)
def test_every_photo_is_shown_once(searcher: Searcher, asked: dict[str, Any]) -> None:
    found = searcher.find(draw_sketch("cat"), **{"k": PHOTOS, "view": "photos", **asked})
    assert len({result.id for result in found.results}) == len(found.results)
    assert found.photos == PHOTOS
    if asked != {"system": "two-stage"}:
        assert len(found.results) == PHOTOS == found.candidates


def test_words_likes_dislikes_groups_and_filters_see_one_photo(searcher: Searcher) -> None:
    assert len(paths(searcher, None, text="guitar")) == PHOTOS
    album = searcher.gallery.photo_at("album.jpg").id
    assert paths(searcher, "cat", like=[album])[0] == "album.jpg"
    assert "album.jpg" not in paths(searcher, "umbrella", unlike=[album])
    groups = searcher.find(draw_sketch("guitar"), k=PHOTOS, view="groups").groups
    assert groups is not None
    members = [photo for group in groups for photo in (group.best.id, *(more.id for more in group.more), *group.others)]
    assert len(members) == len({*members})
    newest = searcher.find(None, folder=["."], k=PHOTOS)
    assert (len(newest.results), newest.photos) == (PHOTOS, PHOTOS)
    assert paths(searcher, "bicycle", after="2000-01-01") == paths(searcher, "bicycle")
    assert paths(searcher, "bicycle", before="2000-01-01") == []


def test_a_part_that_matches_is_not_framed_as_if_it_were_the_photo(searcher: Searcher) -> None:
    found = searcher.find(draw_sketch("guitar"), k=PHOTOS, view="photos").results
    (album,) = (result for result in found if result.paths == ("album.jpg",))
    assert (album.cells, album.boxes) == (None, None)
    assert all(result.cells is not None for result in found if result.paths[0].startswith("guitar"))


def test_the_part_that_matches_is_explained(searcher: Searcher, photos: Path) -> None:
    ids = [searcher.gallery.photo_at(name).id for name in ("album.jpg", "guitar 2.png")]
    drawing = searcher.matcher.preprocessing.drawing(draw_sketch("guitar"))
    album, guitar = explain(searcher, drawing, ExplainParams(photo=ids)).photos
    part = open_image(photos / "album.jpg").crop((35, 440, 285, 690)).resize((224, 224))
    assert difference(album.picture(), part) < 15
    assert album.ret_rank <= 4
    assert album.relation_score is not None
    assert album.relation_score > 0.5 * (guitar.relation_score or 0)
    assert len(album.things) == len(guitar.things) == 1
    assert album.nearest[0].paths[0].startswith("guitar")


def test_no_photo_lacks_what_a_part_shows(searcher: Searcher, photos: Path, default: Matcher, tmp_path: Path) -> None:
    names = ["apple 2.png", "album.jpg", "panorama.jpg"]
    ids = [searcher.gallery.photo_at(name).id for name in names]
    folders = cut(photos.with_name("index"), default, tmp_path, [photo % 3 for photo in range(PHOTOS)])
    things = ("umbrella", "guitar", "bicycle")
    drawings = [default.preprocessing.drawing(draw_sketch(thing)) for thing in things]
    for one in (searcher, searcher_of(links_to(folders, default), default)):
        asked = [LocateParams(photo=ids, text=thing) for thing in things]
        found = [locate(one, *each).photos for each in zip(drawings, asked, strict=True)]
        assert [photos[1].unseen for photos in found] == [()] * 3
        # The picture of an apple might be one of an umbrella.
        assert [photos[0].unseen for photos in found] == [(), ("guitar",), ("bicycle",)]
        assert found[0][2].unseen == ()
