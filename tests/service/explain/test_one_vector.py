"""A network with one vector for each picture is searched and explained like others, without patches."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import model
from indexer import Request, build
from model.checkpoint.file import save_checkpoint
from model.images import Pixels
from model.network import AnchorConfig, AnchorNetwork, ClipAtConfig, ClipAtNetwork, TorchEngine, VitLayout
from service.engine import Engine
from service.explain import write_explanation
from service.explain.response import encode_pixels
from service.schemas import ExplainParams, ExplainResponse, SearchQuery
from service.serving.live_index import check_searches
from service.settings import Settings
from tests.pictures import encoded
from tests.service.small_gallery import draw_sketch

# 289 patches: more than an index has places for, but this network keeps none of them.
ANCHORS = AnchorConfig(name="one-vector", vit=VitLayout(16, 16, 1, 2, 32), image_size=272, units=24)
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
    build(folder / "index", Request([gallery], clusters=3), matcher)
    opened = Engine(Settings(index=folder / "index", weights=folder / "weights.safetensors"), matcher)
    yield opened
    opened.close()


def test_it_finds_photos_by_ret_however_it_is_asked(engine: Engine) -> None:
    check_searches(engine.searcher)
    sketch = engine.prepare(encoded(draw_sketch(1)))
    found = engine.search(sketch, SearchQuery(k=4))
    assert (found.method, found.model, len(found.results)) == ("ret", "one-vector", 4)
    kind = engine.info()[0].kind
    assert kind in ("sketch-an-anchor", "clip-at")
    assert engine.search(sketch, SearchQuery(k=4, nprobe=2)).results


def test_its_explanation_shows_where_it_looked_and_compares_no_patches(engine: Engine) -> None:
    sketch = engine.prepare(encoded(draw_sketch(1)))
    photos = [result.id for result in engine.search(sketch, SearchQuery(k=2)).results]
    answer = engine.explain(sketch, ExplainParams(photo=photos))
    assert answer.grid == 17
    for picture in (answer.sketch, *answer.photos):
        assert [len(head) for head in picture.attention] == [289, 289]
        assert all(0.5 < sum(head) <= 1 for head in picture.attention)
    for photo in answer.photos:
        assert (photo.relation_score, photo.matches, photo.influence, photo.correspondence) == (None, [], [], [])
        assert 0 <= photo.ret_distance <= 2
        assert len(photo.nearest) == 6


def test_what_is_laid_over_a_padded_picture_lies_where_the_network_saw_it() -> None:
    """A white photo, twice as wide as high, with a red spot: the cells that see the spot are those that show it."""
    network = ClipAtNetwork(dataclasses.replace(CLIP_AT, released_padding=True))
    matcher = model.Matcher(TorchEngine(network), "untracked")
    bare = Image.new("RGB", (544, 272), "white")
    spotted = bare.copy()
    spotted.paste((255, 0, 0), (400, 150, 440, 190))
    seen = [encode_pixels(matcher, matcher.preprocessing.pixels(p, "photo"), "photo") for p in (bare, spotted)]
    # Padded to a square, in black, at half the size: in the quarters above and below there is no photo.
    assert not seen[1].pixels[:64].any()
    assert not seen[1].pixels[-64:].any()
    assert seen[1].pixels[152, 210].tolist() == [255, 0, 0]
    first, second = (
        network.encoder.vit.patch_embed(torch.from_numpy(matcher.prepare(p, "photo"))[None])[0] for p in (bare, spotted)
    )
    felt = set((first - second).abs().sum(dim=1).nonzero()[:, 0].tolist())
    grid = CLIP_AT.grid
    side = CLIP_AT.image_size // grid

    def patch(pixels: Pixels, cell: int) -> Pixels:
        top, left = cell // grid * side, cell % grid * side
        return pixels[top : top + side, left : left + side]

    shown = {cell for cell in range(grid * grid) if np.any(patch(seen[0].pixels, cell) != patch(seen[1].pixels, cell))}
    assert felt == shown


def test_its_files_show_where_it_looked_and_the_nearest_photos_alone(engine: Engine, tmp_path: Path) -> None:
    answer = engine.explain(engine.prepare(encoded(draw_sketch(1))), ExplainParams(photo=[1, 2, 3]))
    written = write_explanation(answer, tmp_path / "why")
    document = ExplainResponse.model_validate_json(written[0].read_bytes())
    assert [len(head) for head in document.sketch.attention] == [289, 289]
    assert all(not one.matches and one.nearest for one in document.photos)
