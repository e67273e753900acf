from pathlib import Path

import pytest

from sketch_search import model
from sketch_search.indexer import BuildRequest, build
from sketch_search.model.datasets import Corpus, Picture
from sketch_search.model.evaluation import search_matrices
from sketch_search.model.search import stages
from sketch_search.service.settings import Settings
from tests.pictures import drawing, encoded
from tests.service.search.test_things import on_paper
from tests.service.served import served
from tests.service.small_gallery import draw_photo

# Two shapes apart, a coloured one, and single ones in black.
_SKETCHES = [
    *(encoded(drawing(shape, 128, seed)) for seed, shape in enumerate(["star", "circle", "house", "cross"])),
    *(encoded(on_paper(shape, 20, (200, 40, 40))) for shape in ("star", "cross", "house", "circle")),
]

_WORDS = ("cup", "house")


def test_sketches_and_words_rank_over_http_as_the_evaluation_ranks_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Fewer photos are scored than there are, so that the others are estimated.
    monkeypatch.setattr(stages, "RERANK", 4)
    matcher, index, folder = model.load(), tmp_path / "index", tmp_path / "photos"
    folder.mkdir()
    photos = tuple(Picture(folder / f"{seed}.png", "", "") for seed in range(10))
    for seed, picture in enumerate(photos):
        picture.path.write_bytes(encoded(draw_photo(seed)))
    build(index, BuildRequest([folder], embedder="ret"), matcher)
    sketches = tuple(Picture(tmp_path / f"{number}.png", _WORDS[number % 2], "") for number in range(len(_SKETCHES)))
    for sketch, data in zip(sketches, _SKETCHES, strict=True):
        sketch.path.write_bytes(data)
    evaluated = search_matrices(matcher, Corpus(sketches, photos), words=True)
    with served(Settings.model_validate({"index": index})) as server:
        for number, (sketch, data) in enumerate(zip(sketches, _SKETCHES, strict=True)):
            for way, content, text in (
                ("search", data, ""),
                ("word", None, sketch.label),
                ("search+word", data, sketch.label),
            ):
                answer = server.http.post("/search", content=content, params={"text": text} if text else {}).json()
                ranked = {result["paths"][0]: result["raw_score"] for result in answer["results"]}
                scores = zip(photos, evaluated[way][number], strict=True)
                assert ranked == pytest.approx({photo.path.name: float(score) for photo, score in scores}, abs=1e-3)
