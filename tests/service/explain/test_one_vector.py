"""A network with one vector for each picture is searched and explained like others, without patches."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import model
from indexer import build
from model.checkpoint.file import save_checkpoint
from model.network.vectors import AnchorConfig, AnchorNetwork, ClipAtConfig, ClipAtNetwork, VitLayout, VitSizes
from service.engine import Engine
from service.schemas import ExplainParams, SearchQuery
from service.settings import Settings
from tests.pictures import encoded
from tests.service.small_gallery import draw_sketch

# 289 patches: more than an index has places for, but this network keeps none of them.
ANCHORS = AnchorConfig(
    name="one-vector", backbone="vit_tiny_patch16_224", sizes=VitSizes(16, 1, 2, 2.0), image_size=272, units=24
)
CLIP_AT = ClipAtConfig(
    name="one-vector", vit=VitLayout(patch_size=16, width=16, depth=1, heads=2, mlp_width=32), image_size=272
)


@pytest.fixture(scope="module", params=[ANCHORS, CLIP_AT], ids=["sketch-an-anchor", "clip-at"])
def engine(request: pytest.FixtureRequest, gallery: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("one-vector")
    torch.manual_seed(0)
    config: AnchorConfig | ClipAtConfig = request.param
    network = AnchorNetwork(config) if isinstance(config, AnchorConfig) else ClipAtNetwork(config)
    network = network.with_calibration(dataclasses.replace(network.calibration, diffusion=0.3))
    save_checkpoint(network, folder / "weights.safetensors")
    matcher = model.load(folder / "weights.safetensors")
    build([gallery], folder / "index", matcher, clusters=3)
    opened = Engine(Settings(index=folder / "index", weights=folder / "weights.safetensors"), matcher)
    yield opened
    opened.close()


def test_it_finds_photos_by_ret_however_it_is_asked(engine: Engine) -> None:
    engine.try_out()
    sketch = engine.prepare(encoded(draw_sketch(1)))
    found = engine.search(sketch, SearchQuery(k=4))
    assert (found.method, found.model, len(found.results)) == ("ret", "one-vector", 4)
    kind = engine.info()[0].kind
    assert kind in ("sketch-an-anchor", "clip-at")
    assert engine.search(sketch, SearchQuery(k=4, select="clusters", nprobe=2)).results


@pytest.mark.parametrize("rebuild", ["none", "photos", "gallery"])
def test_its_explanation_shows_where_it_looked_and_compares_no_patches(engine: Engine, rebuild: str) -> None:
    sketch = engine.prepare(encoded(draw_sketch(1)))
    photos = [result.id for result in engine.search(sketch, SearchQuery(k=2)).results]
    answer = engine.explain(sketch, ExplainParams.model_validate({"photo": photos, "rebuild": rebuild}))
    assert answer.grid == 17
    for picture in (answer.sketch, *answer.photos):
        assert [len(head) for head in picture.attention] == [289, 289]
        assert all(0.5 < sum(head) <= 1 for head in picture.attention)
    for photo in answer.photos:
        assert (photo.relation_score, photo.matches, photo.influence, photo.correspondence) == (None, [], [], [])
        assert 0 <= photo.ret_distance <= 2
        assert len(photo.nearest) == 6
    assert bool(answer.rebuilt) == (rebuild != "none")


def test_its_files_show_where_it_looked_and_the_nearest_photos_alone(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "sketch.png").write_bytes(encoded(draw_sketch(1)))
    written = engine.explain_into(tmp_path / "sketch.png", [], tmp_path / "why")
    assert [file.name for file in written] == [
        *("sketch.png", "1.png", "2.png", "3.png", "nearest.png", "explanation.json")
    ]
    drawn = engine.figures_into([tmp_path / "sketch.png"], tmp_path / "figures", None)
    assert [file.name for file in drawn] == ["figure3.png", "figure4.png", "figure5.png"]
