from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sketch_search.indexer import BuildRequest, build
from sketch_search.model import Matcher
from sketch_search.model.search import encode_things, gallery_of, search_things, stages
from sketch_search.model.training.corpus import Corpus, Picture
from sketch_search.model.training.evaluation.scoring import encode_pictures, search_matrices
from sketch_search.service.settings import Settings
from tests.pictures import drawing, encoded
from tests.service.search.test_things import on_paper
from tests.service.served import served
from tests.service.small_gallery import draw_photo

# Two shapes apart, a coloured one, and single ones in black.
_SKETCHES = [
    *(encoded(drawing(shape, 128, seed)) for seed, shape in enumerate(["star", "circle"])),
    *(encoded(on_paper(shape, 20, (200, 40, 40))) for shape in ("star", "cross")),
]

_WORDS = ("cup", "house")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, default: Matcher) -> tuple[Picture, ...]:
    """Ten photos, with their index beside them."""
    folder = tmp_path_factory.mktemp("gallery") / "photos"
    folder.mkdir()
    found = tuple(Picture(folder / f"{seed}.png", "", "") for seed in range(10))
    for seed, picture in enumerate(found):
        picture.path.write_bytes(encoded(draw_photo(seed)))
    build(folder.with_name("index"), BuildRequest([folder], embedder="ret"), default)
    return found


@pytest.fixture
def settings(photos: tuple[Picture, ...], monkeypatch: pytest.MonkeyPatch) -> Settings:
    # Fewer photos are scored than there are, so that the others are estimated.
    monkeypatch.setattr(stages, "RERANK", 4)
    return Settings.model_validate({"index": photos[0].path.parents[1] / "index"})


def test_sketches_and_words_rank_over_http_as_the_evaluation_ranks_them(
    tmp_path: Path, photos: tuple[Picture, ...], settings: Settings, default: Matcher
) -> None:
    sketches = tuple(Picture(tmp_path / f"{number}.png", _WORDS[number % 2], "") for number in range(len(_SKETCHES)))
    for sketch, data in zip(sketches, _SKETCHES, strict=True):
        sketch.path.write_bytes(data)
    evaluated = search_matrices(default, Corpus(sketches, photos), words=True, boxes=True)
    with served(settings) as server:
        for number, (sketch, data) in enumerate(zip(sketches, _SKETCHES, strict=True)):
            word = {"text": sketch.label}
            for way, content, params in (("search", data, {}), ("word", None, word), ("search+word", data, word)):
                answer = server.http.post("/search", content=content, params=params).json()
                scores = zip(photos, evaluated[way][number], strict=True)
                expected = {photo.path.name: float(score) for photo, score in scores}
                assert _ranked(answer) == pytest.approx(expected, abs=1e-3)


def test_clicks_rank_over_http_as_the_evaluation_ranks_them(
    photos: tuple[Picture, ...], settings: Settings, default: Matcher
) -> None:
    matcher, (star, *_) = default, _SKETCHES
    gallery = gallery_of(encode_pictures(matcher, photos, "photo", boxes=True), matcher)
    things = encode_things(matcher, matcher.preprocessing.drawing(drawing("star", 128, 0)), variants=None)
    search = partial(search_things, gallery, matcher, things, 20)
    second = search().photos[1:2]
    with served(settings) as server:
        results = server.http.post("/search", content=star).json()["results"]
        (photo,) = (one["id"] for one in results if one["paths"] == [photos[second.ids[0]].path.name])
        for click, ranking in (("like", search(liked=second)), ("unlike", search(unliked=second))):
            answer = server.http.post("/search", content=star, params={click: photo}).json()
            scores = zip(ranking.photos.ids, ranking.photos.scores, strict=True)
            expected = {photos[number].path.name: float(score) for number, score in scores}
            assert _ranked(answer) == pytest.approx(expected, abs=1e-3)
            assert list(_ranked(answer)) == list(expected)


def _ranked(answer: Any) -> dict[str, float]:
    return {result["paths"][0]: result["raw_score"] for result in answer["results"]}
