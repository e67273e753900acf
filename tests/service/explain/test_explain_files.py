"""Explanations as files, made from a small index."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import model
from indexer import build, open_index
from model.terminal import Refusal
from service.commands.explain import explain
from service.errors import BadSearch
from service.explain.files import ExplainedFiles, best_of_index, write_explanation, write_file
from service.schemas import SearchQuery
from service.settings import Settings
from tests import browser
from tests.browser import DESKTOP, Browser, wait
from tests.pictures import drawing, photo
from tests.requirements import needs_browser
from tests.searching import Searcher
from tests.service.looking import axe_complaints
from tests.service.small_gallery import draw_sketch

SHAPES = ("circle", "star")


@dataclass(frozen=True)
class Place:
    """The searcher of an index of two folders of shapes, its photos, its settings, and sketches of both shapes."""

    searcher: Searcher
    photos: Path
    settings: Settings
    sketches: tuple[Path, ...]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("explained")
    sketches = []
    for shape in SHAPES:
        for half in ("photos", "sketches"):
            (root / half / shape).mkdir(parents=True)
        for seed in range(4):
            photo(shape, 96, seed).save(root / "photos" / shape / f"{seed}.png")
        sketches.append(root / "sketches" / shape / "0.png")
        drawing(shape, 128).save(sketches[-1])
    matcher = model.load(weights)
    build([root / "photos"], root / "index", matcher, clusters=2, embedder="ret")
    settings = Settings(index=root / "index", weights=weights)
    with open_index(root / "index", matcher) as index:
        yield Place(Searcher(index, matcher), root / "photos", settings, tuple(sketches))


def explained(folder: Path) -> ExplainedFiles:
    return ExplainedFiles.model_validate_json((folder / "explanation.json").read_text(encoding="utf-8"), strict=True)


def test_an_explanation_is_one_page_and_its_data(place: Place, tmp_path: Path) -> None:
    searcher = place.searcher
    photos = best_of_index(searcher, draw_sketch(), 2)
    page, data = write_explanation(searcher, draw_sketch(), photos, tmp_path / "new" / "out")
    assert [page.name, data.name] == ["explanation.html", "explanation.json"]
    assert "http" not in page.read_text(encoding="utf-8").replace("http-equiv", "")
    document = explained(data.parent)
    assert (document.kind, document.grid, document.model) == ("sketch", 4, searcher.matcher.config.name)
    assert [one.path for one in document.photos] == [one.name for one in photos]
    assert [one.source for one in document.rebuilt] == ["photo", "photo", "photos"]
    for one, named in zip(document.photos, photos, strict=True):
        assert one.relation_score == searcher.matcher.explain(draw_sketch(), named.image).relation_score
        assert one.influence
        assert all(near.thumbnail_url.startswith("data:image/jpeg;base64,") for near in one.nearest)


@pytest.fixture
def files(place: Place, tmp_path: Path) -> Path:
    """The folder of an explanation of two photos, the first of which is not in the index."""
    stranger = tmp_path / "<b>stranger<!--.png"
    photo("star", 96, 9).save(stranger)
    known = place.photos / "circle" / "1.png"
    assert (
        explain(place.settings, place.sketches[0], [stranger, known], tmp_path / "why", like=None, kind="sketch") == 0
    )
    return tmp_path / "why"


def test_photos_are_named_as_they_were_given_and_need_not_be_in_the_index(files: Path) -> None:
    stranger, known = explained(files).photos
    assert stranger.path.endswith("stranger<!--.png")
    assert stranger.ret_rank is None
    assert known.ret_rank is not None


@needs_browser
def test_the_page_shows_every_view_from_the_disk_as_the_service_does(files: Path) -> None:
    with browser.browser(DESKTOP) as driver:
        driver.get((files / "explanation.html").as_uri())
        wait(driver).until(lambda d: d.execute_script("return !document.getElementById('why-body').hidden"))
        assert shown(driver, "why-photos") == ["1: <b>stranger<!--.png", "2: 1.png"]
        for view in ("nearest", "look", "kept", "pairs", "rebuilt", "parts"):
            driver.execute_script(f"document.querySelector('[name=why-view][value={view}]').click()")
            assert not axe_complaints(driver)
        assert shown(driver, "why-rebuilt") == ["From <b>stranger<!--.png", "From 1.png", "From 2 photos together"]
        ranks = driver.execute_script(
            "return [...document.querySelectorAll('#why-nearest > li > .says')].map((one) => one.textContent)"
        )
        assert ranks[0] == "Not in the index"
        assert ranks[1].startswith("Number ")
        broken = "return [...document.images].filter((one) => one.src && !one.naturalWidth).length"
        wait(driver).until(lambda d: d.execute_script(broken) == 0)
        assert browser.complaints(driver) == browser.requested(driver) == []


def shown(driver: Browser, rows: str) -> list[str]:
    """The names of the photos in a list of the page."""
    names: list[str] = driver.execute_script(
        f"return [...document.querySelectorAll('#{rows} > li > .name')].map((one) => one.textContent)"
    )
    return names


def test_why_photos_are_like_one_of_the_index_is_said_without_it(place: Place, tmp_path: Path) -> None:
    assert explain(place.settings, None, [], tmp_path, like="circle/1.png", kind="sketch") == 0
    document = explained(tmp_path)
    assert (document.kind, document.method) == ("photo", "ret")
    assert "circle/1.png" not in [one.path for one in document.photos]
    assert all("circle/1.png" not in near.paths for near in document.nearest)
    with pytest.raises(Refusal, match="nothing to compare"):
        explain(place.settings, None, [], tmp_path, like=None, kind="sketch")


@pytest.mark.parametrize("name", ["explanation.html", "explanation.json"])
def test_nothing_is_written_through_a_symbolic_link(place: Place, tmp_path: Path, name: str) -> None:
    (tmp_path / "mine").write_text("keep this")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to(tmp_path / "mine")
    with pytest.raises(Refusal, match="is a symbolic link"):
        explain(place.settings, place.sketches[0], [], tmp_path / "out", like=None, kind="sketch")
    assert (tmp_path / "mine").read_text() == "keep this"


def test_a_file_is_replaced_whatever_it_held(tmp_path: Path) -> None:
    file = tmp_path / "page"
    for data in (b"long text", b"text", b""):
        write_file(file, data)
        assert file.read_bytes() == data


def test_the_best_photos_are_those_a_search_finds(place: Place) -> None:
    hits = place.searcher.search(draw_sketch(), SearchQuery(k=3)).results
    found = best_of_index(place.searcher, draw_sketch(), 3)
    assert [photo.name for photo in found] == [hit.paths[0] for hit in hits]
    with Image.open(place.photos / found[0].name) as image:
        assert np.array_equal(np.asarray(found[0].image), np.asarray(image))
    assert len(best_of_index(place.searcher, draw_sketch(), 50)) == place.searcher.index.photo_count


def test_photos_that_are_gone_make_room_for_the_next_best(tmp_path: Path, weights: Path) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    for seed in range(6):
        photo("star", 96, seed).save(root / f"{seed}.png")
    matcher = model.load(weights)
    build([root], tmp_path / "index", matcher, clusters=2, embedder="ret")
    with open_index(tmp_path / "index", matcher) as index:
        searcher = Searcher(index, matcher)
        names = [p.name for p in best_of_index(searcher, draw_sketch(), 6)]
        (root / names[0]).unlink()
        (root / names[2]).write_bytes(b"something else")
        left = [name for n, name in enumerate(names) if n not in (0, 2)]
        assert [p.name for p in best_of_index(searcher, draw_sketch(), 2)] == left[:2]
        assert [p.name for p in best_of_index(searcher, draw_sketch(), 9)] == left
        shutil.rmtree(root)
        draw_sketch().save(tmp_path / "sketch.png")
        settings = Settings(index=tmp_path / "index", weights=weights)
        with pytest.raises(BadSearch, match="no photo to explain"):
            explain(settings, tmp_path / "sketch.png", [], tmp_path / "out", like=None, kind="sketch")
