"""Explanations as files are made with the service's settings, like its searches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from model import Matcher
from model.errors import ImageTooLarge
from service.commands.explain import explain
from service.engine import Engine
from service.schemas import SearchQuery
from service.settings import Settings
from tests.pictures import encoded
from tests.service.small_gallery import draw_sketch


@pytest.fixture
def by_clusters(settings: Settings, matcher: Matcher) -> Iterator[Engine]:
    engine = Engine(settings.model_copy(update={"nprobe": 1}), matcher)
    yield engine
    engine.close()


def best_paths(engine: Engine, sketch: Path) -> list[str]:
    return [result.paths[0] for result in engine.search(engine.prepare(sketch.read_bytes()), SearchQuery(k=3)).results]


def test_the_photos_explained_are_those_that_a_search_finds_by_the_same_settings(
    by_clusters: Engine, settings: Settings, matcher: Matcher, tmp_path: Path
) -> None:
    by_ret = Engine(settings, matcher)
    sketches = [tmp_path / f"{seed}.png" for seed in range(6)]
    for seed, sketch in enumerate(sketches):
        sketch.write_bytes(encoded(draw_sketch(seed)))
    # A sketch whose best photos are not all in the clusters that its search opens.
    sketch = next(sketch for sketch in sketches if best_paths(by_clusters, sketch) != best_paths(by_ret, sketch))
    for engine, chosen in ((by_clusters, {"nprobe": 1}), (by_ret, {})):
        own = settings.model_copy(update=chosen)
        assert explain(own, sketch, [], tmp_path / "explained", like=None, kind="sketch") == 0
        explained = json.loads((tmp_path / "explained" / "explanation.json").read_bytes())["photos"]
        assert [photo["path"] for photo in explained] == best_paths(engine, sketch)
    by_ret.close()


def test_sketches_with_too_many_pixels_are_not_explained(settings: Settings, matcher: Matcher, tmp_path: Path) -> None:
    sketch = tmp_path / "sketch.png"
    sketch.write_bytes(encoded(draw_sketch()))
    small = settings.model_copy(update={"max_pixels": 100})
    engine = Engine(small, matcher)
    with pytest.raises(ImageTooLarge):
        engine.prepare(sketch.read_bytes())
    with pytest.raises(ImageTooLarge):
        explain(small, sketch, [], tmp_path / "explained", like=None, kind="sketch")
    engine.close()
