"""The figures and the files of an explanation, drawn from a small index."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import model
from indexer import Index, build, open_index
from model import Matcher, ModelError
from service.errors import BadSearch
from service.explain.best_photos import best_of, best_of_folder, best_of_index
from service.explain.files import DOCUMENT, ExplainedFiles, write_explanation
from service.explain.overlays import BLUE, CAPTION, GAP, RED
from service.explain.paper_figures import figures
from service.schemas import SearchQuery
from service.schemas.explain import ExplainedPair
from service.search.searcher import Searcher
from tests.pictures import drawing, photo
from tests.service.small_gallery import draw_sketch

SHAPES = ("circle", "star")
MAX_PIXELS = 1_000_000


@dataclass(frozen=True)
class Place:
    """An index of two folders of shapes, its searcher, its photos, and sketches of both shapes."""

    index: Index
    searcher: Searcher
    matcher: Matcher
    photos: Path
    path: Path
    sketches: tuple[Path, ...]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("figures")
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
    with open_index(root / "index", matcher) as index:
        yield Place(index, Searcher(index, matcher), matcher, root / "photos", root / "index", tuple(sketches))


def reds(path: Path) -> int:
    with Image.open(path) as image:
        return int((np.asarray(image) == RED).all(axis=2).sum())


def test_every_figure_is_drawn_with_a_row_a_sketch(place: Place, tmp_path: Path) -> None:
    written = figures(place.searcher, place.sketches, tmp_path / "new" / "out", place.photos, max_pixels=MAX_PIXELS)
    assert [path.name for path in written] == [
        f"figure{name}.png" for name in ("3", "4", "5", "6", "7a", "7b", "8a", "8b")
    ]
    one = figures(place.searcher, place.sketches[:1], tmp_path / "one", place.photos, max_pixels=MAX_PIXELS)
    for path, smaller in zip(written, one, strict=True):
        with Image.open(path) as image, Image.open(smaller) as of_one:
            assert len(image.getcolors(1 << 20) or [()] * 999) > 2
            assert image.height > 1.7 * of_one.height


def test_photos_in_another_folder_than_the_sketchs_are_framed_in_red(place: Place, tmp_path: Path) -> None:
    (drawn,) = place.sketches[:1]
    framed = figures(place.searcher, [drawn], tmp_path / "known", max_pixels=MAX_PIXELS)[0]
    wrong = [p.name for p in best_of_index(place.searcher, draw(drawn), 5) if "circle" not in p.name]
    assert wrong
    frame = reds(framed) / len(wrong)
    assert frame > 4 * 60
    assert frame == int(frame)
    # Of a sketch whose folder no photo's folder is called like, nobody knows what is wrong.
    stranger = tmp_path / "who knows" / "0.png"
    stranger.parent.mkdir()
    shutil.copy(drawn, stranger)
    assert reds(figures(place.searcher, [stranger], tmp_path / "unknown", max_pixels=MAX_PIXELS)[0]) == 0


def draw(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def test_without_training_photos_and_without_a_relation_network_their_figures_are_left_out(
    place: Place, tmp_path: Path
) -> None:
    names = {path.name for path in figures(place.searcher, place.sketches[:1], tmp_path / "out", max_pixels=MAX_PIXELS)}
    assert "figure8a.png" not in names
    assert "figure8b.png" in names
    assert names == {path.name for path in (tmp_path / "out").iterdir()}


def test_no_sketch_is_refused(place: Place, tmp_path: Path) -> None:
    with pytest.raises(BadSearch, match="at least one sketch"):
        figures(place.searcher, [], tmp_path, max_pixels=MAX_PIXELS)


def test_the_best_photos_are_those_a_search_finds(place: Place) -> None:
    hits = place.searcher.search(draw_sketch(), SearchQuery(k=3)).results
    found = best_of_index(place.searcher, draw_sketch(), 3)
    assert [photo.name for photo in found] == [hit.paths[0] for hit in hits]
    with Image.open(place.photos / found[0].name) as image:
        assert np.array_equal(np.asarray(found[0].image), np.asarray(image))
    assert len(best_of_index(place.searcher, draw_sketch(), 50)) == place.index.photo_count


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
        with pytest.raises(BadSearch, match="no photo that can be read"):
            figures(searcher, [save(draw_sketch(), tmp_path / "sketch.png")], tmp_path / "out", max_pixels=MAX_PIXELS)


def save(image: Image.Image, path: Path) -> Path:
    image.save(path)
    return path


def test_the_best_photo_of_a_folder_is_the_one_that_scores_highest(place: Place, tmp_path: Path) -> None:
    matcher, folder = place.matcher, tmp_path / "training"
    shutil.copytree(place.photos, folder)
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("no picture either")
    found = best_of_folder(folder, matcher, draw_sketch())
    sketch = matcher.encode(matcher.prepare(draw_sketch(), "sketch")[None], "sketch")
    scores = {}
    for path in sorted(folder.rglob("*.png")):
        tokens = matcher.encode(matcher.prepare(draw(path), "photo")[None], "photo")
        scores[path.relative_to(folder).as_posix()] = float(matcher.scores(sketch, tokens))
    assert found.name == max(scores, key=lambda name: scores[name])
    assert best_of(folder, matcher, draw_sketch()).name == found.name
    of_index = best_of(place.path, matcher, draw_sketch())
    assert of_index.name == best_of_index(place.searcher, draw_sketch(), 1)[0].name
    with pytest.raises(ModelError, match="no photo that can be opened"):
        best_of_folder(tmp_path / "nowhere", matcher, draw_sketch())


def test_an_explanation_is_written_as_overlays_of_every_picture_and_one_document(place: Place, tmp_path: Path) -> None:
    photos = best_of_index(place.searcher, draw_sketch(), 2)
    written = write_explanation(place.searcher, draw_sketch(), photos, tmp_path / "out")
    names = ["sketch.png", "1.png", "2.png", "nearest.png", "matches.png", "rebuilt.png", "explanation.json"]
    assert [path.name for path in written] == names
    for path in written[:-1]:
        with Image.open(path) as image:
            assert image.width > 2 * 64
    document = ExplainedFiles.model_validate(json.loads(written[-1].read_text(encoding="utf-8")))
    assert (document.grid, document.model) == (4, place.matcher.config.name)
    assert [p.name for p in document.photos] == [p.name for p in photos]
    for explained, named in zip(document.photos, photos, strict=True):
        assert isinstance(explained, ExplainedPair)
        assert explained.relation_score == place.matcher.explain(draw_sketch(), named.image).relation_score
        assert explained.influence


def test_what_looks_like_the_sketch_and_like_a_photo_is_framed_in_both_rows(place: Place, tmp_path: Path) -> None:
    photos = best_of_index(place.searcher, draw_sketch(), 1)
    write_explanation(place.searcher, draw_sketch(), photos, tmp_path)
    document = ExplainedFiles.model_validate_json((tmp_path / DOCUMENT).read_text(encoding="utf-8"))
    near_sketch = [near.name for near in document.nearest]
    near_photos = [[near.name for near in explained.nearest] for explained in document.photos]
    framed = [
        [any(name in near for near in near_photos) for name in near_sketch],
        *([name in near_sketch for name in near] for near in near_photos),
    ]
    assert all(True in row for row in framed)
    assert False in framed[0]
    with Image.open(tmp_path / "nearest.png") as image:
        side = (image.height - GAP) // len(framed) - GAP - CAPTION
        places = [
            [(GAP + across * (side + GAP), GAP + down * (side + CAPTION + GAP)) for across in range(1, len(row) + 1)]
            for down, row in enumerate(framed)
        ]
        assert [[image.getpixel(corner) == BLUE for corner in row] for row in places] == framed
