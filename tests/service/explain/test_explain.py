"""Explanations of photos of an index, against what the network says of their files and what searches find."""

import base64
import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import model
from indexer import Index, PhotoUnavailable, Request, build
from model import Matcher
from model.checkpoint.file import save_checkpoint
from model.decoding import Job
from model.engine import unit
from model.images import Pixels
from model.images.files import open_image
from model.network import AnchorConfig, AnchorNetwork, ClipAtConfig, ClipAtNetwork, VitLayout
from model.ranking import centred
from service.engine import Engine
from service.explain.response import explain
from service.schemas import ExplainParams, ExplainResponse, SearchQuery
from service.serving.live_index import check_searches
from service.settings import Settings
from tests.pictures import encoded
from tests.searching import Searcher, searching
from tests.service.small_gallery import PHOTOS, draw_photo, draw_sketch

GRID = 4


def prepared(matcher: Matcher, sketch: bytes) -> Pixels:
    return np.asarray(Job.preparing(matcher.preprocessing, "sketch").run(sketch).image)


def answer(index: Index, matcher: Matcher, sketch: bytes, *photos: int, **more: object) -> ExplainResponse:
    params = ExplainParams.model_validate({"photo": photos, **more})
    return explain(Searcher(index, matcher), prepared(matcher, sketch), params, originals=True)


def decoded(url: str) -> Image.Image:
    kind, _, data = url.partition(";base64,")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.format is not None
    assert kind == f"data:image/{image.format.lower()}"
    return image


@pytest.fixture(scope="module")
def searcher(index: Index, matcher: Matcher) -> Searcher:
    return Searcher(index, matcher)


@pytest.fixture(scope="module")
def response(index: Index, matcher: Matcher, sketch: bytes) -> ExplainResponse:
    return answer(index, matcher, sketch, 5, 12, 9)


def test_the_photos_are_explained_in_the_order_asked_for_as_the_network_explains_their_files(
    response: ExplainResponse, index: Index, matcher: Matcher, gallery: Path
) -> None:
    assert [explained.id for explained in response.photos] == [5, 12, 9]
    for explained in response.photos:
        image = open_image(gallery / index.photo(explained.id).paths[0])
        wanted = matcher.explain(draw_sketch(), image)
        assert explained.relation_score == pytest.approx(wanted.relation_score, abs=1e-4)
        assert explained.ret_distance == pytest.approx(wanted.ret_distance, abs=1e-4)
        assert explained.sketch_cells == wanted.sketch_cells.tolist()
        assert explained.photo_cells == wanted.photo_cells.tolist()
        np.testing.assert_allclose(explained.correspondence, wanted.correspondence, atol=5.1e-4)
        assert [(m.sketch_cell, m.photo_cell) for m in explained.matches] == [(s, p) for s, p, _ in wanted.matches()]
        assert wanted.aligned is not None
        assert explained.cross_attention is not None
        for way in ("sketch_to_photo", "photo_to_sketch"):
            of_ret = getattr(wanted.aligned, way)[:, 0, 1:]
            np.testing.assert_allclose(getattr(explained.cross_attention, way), of_ret, atol=5.1e-5)
        for side, shown in ((wanted.sketch, response.sketch), (wanted.photo, explained)):
            np.testing.assert_allclose(shown.attention, side.heads.reshape(len(side.heads), -1), atol=5.1e-5)
            np.testing.assert_allclose(shown.attention_layers, side.layers.reshape(len(side.layers), -1), atol=5.1e-5)
            assert shown.kept == [np.flatnonzero(kept).tolist() for kept in side.kept]
        assert (explained.photo_url, explained.thumbnail_url) == (
            f"/photos/{explained.id}",
            f"/thumbnails/{explained.id}/{index.photo(explained.id).content_hash[:16]}",
        )


def test_the_pictures_shown_are_the_squares_the_network_saw(
    response: ExplainResponse, index: Index, matcher: Matcher, gallery: Path
) -> None:
    pixels = np.asarray(decoded(response.sketch.image))
    assert np.array_equal(pixels, matcher.preprocessing.pixels(draw_sketch(), "sketch"))
    for explained in response.photos:
        image = decoded(explained.image)
        assert image.format == "JPEG"
        square = matcher.preprocessing.pixels(open_image(gallery / index.photo(explained.id).paths[0]), "photo")
        assert np.abs(np.asarray(image).astype(int) - square).mean() < 12  # JPEG is not exact, but no other photo


def test_the_answer_says_what_it_was_made_with(response: ExplainResponse, index: Index, matcher: Matcher) -> None:
    assert (response.grid, response.method) == (GRID, matcher.best_method)
    assert (response.generation, response.model) == (index.generation, matcher.config.name)
    stages = response.timings_ms
    assert stages.total == pytest.approx(sum(stages.model_dump(exclude={"total"}).values()), abs=0.01)


def test_a_liked_photo_takes_the_place_of_the_sketch(
    searcher: Searcher, index: Index, matcher: Matcher, gallery: Path
) -> None:
    response = explain(searcher, None, ExplainParams(photo=[5, 12], like=5), originals=True)
    same, other = response.photos
    assert (response.method, response.sketch.image) == ("ret", same.image)
    assert (response.sketch.attention, response.sketch.kept) == (same.attention, same.kept)
    # Every patch of a photo is found again in the photo itself.
    assert same.ret_distance == pytest.approx(0, abs=1e-3)
    assert same.sketch_cells == same.photo_cells
    np.testing.assert_allclose(np.diag(same.correspondence), 1, atol=1e-3)
    images = [open_image(gallery / index.photo(number).paths[0]) for number in (5, 12)]
    liked, photo = (matcher.encode(matcher.prepare(image, "photo")[None], "photo") for image in images)
    here, there = (unit(tokens.ret) for tokens in (liked, photo))
    assert other.ret_distance == pytest.approx(float(np.linalg.norm(here - there)), abs=1e-4)
    mean = np.concatenate([liked.patches[0], photo.patches[0]]).mean(axis=0)
    everything = unit(liked.patches[0] - mean) @ unit(photo.patches[0] - mean).T
    rows = [liked.positions[0].tolist().index(cell) for cell in other.sketch_cells]
    columns = [photo.positions[0].tolist().index(cell) for cell in other.photo_cells]
    np.testing.assert_allclose(other.correspondence, everything[rows][:, columns], atol=2e-3)
    assert [match.sketch_cell for match in other.matches] != []
    # Neither cross-attention nor the relation network has a part in it.
    assert (other.relation_score, other.cross_attention, other.influence) == (None, None, [])


def test_photos_that_changed_or_are_gone_are_not_explained(tmp_path: Path, sketch: bytes) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    for seed in range(3):
        (root / f"{seed}.png").write_bytes(encoded(draw_photo(seed)))
    with searching(root, tmp_path, clusters=2) as searcher:
        changed, gone = 1, 2
        (root / searcher.index.photo(changed).paths[0]).write_bytes(encoded(draw_photo(20)))
        (root / searcher.index.photo(gone).paths[0]).unlink()
        for number in (changed, gone):
            with pytest.raises(PhotoUnavailable, match="index build"):
                answer(searcher.index, searcher.matcher, sketch, number)
        assert answer(searcher.index, searcher.matcher, sketch, 3).photos[0].id == 3


def test_the_photos_nearest_to_a_sketch_are_the_first_of_a_search_by_ret_before_diffusion(
    searcher: Searcher, response: ExplainResponse, sketch: bytes
) -> None:
    query = SearchQuery(k=PHOTOS, method="ret", diffuse=False)
    hits = searcher.search(prepared(searcher.matcher, sketch), query).results
    found = {hit.id: (hit.rank, hit.raw_score) for hit in hits}
    assert [one.id for one in response.nearest] == list(found)[:6]
    for one in response.nearest:
        rank, score = found[one.id]
        assert one.rank == rank
        assert one.cosine == pytest.approx(1 - score**2 / 2, abs=6e-4)
        assert one.paths == searcher.index.photo(one.id).paths
        assert one.thumbnail_url.startswith(f"/thumbnails/{one.id}/")
    for explained in response.photos:
        assert explained.ret_rank == found[explained.id][0]
        assert [near.rank for near in explained.nearest] == [found[near.id][0] for near in explained.nearest]


def by_hand(index: Index, photo: int) -> dict[int, float]:
    """Computes each photo's likeness to one of the index, the cosine of their [Ret] without the mean; nearest first."""
    directions = centred(index.vectors.of())
    cosines = directions @ directions[index.ids.tolist().index(photo)]
    order = np.argsort(-cosines)
    return dict(zip(index.ids[order].tolist(), cosines[order].tolist(), strict=True))


def test_the_photos_nearest_to_a_photo_are_those_that_diffusion_would_take_scores_from(
    index: Index, response: ExplainResponse
) -> None:
    for explained in response.photos:
        own, *others = by_hand(index, explained.id).items()
        assert own[0] == explained.id
        assert [near.id for near in explained.nearest] == [photo for photo, _ in others[:6]]
        np.testing.assert_allclose([near.cosine for near in explained.nearest], [c for _, c in others[:6]], atol=2e-3)


def test_around_a_liked_photo_are_those_like_it_and_it_is_not_said_to_be_like_itself(searcher: Searcher) -> None:
    liked = explain(searcher, None, ExplainParams(photo=[7, 12], like=7, nearest=3), originals=False)
    found = list(by_hand(searcher.index, 7))
    assert [one.id for one in liked.nearest] == found[1:4]
    # This is as in a search, where the liked photo is the first result.
    assert [one.ret_rank for one in liked.photos] == [1, 1 + found.index(12)]
    assert liked.photos[0].nearest == liked.nearest
    assert all(one.photo_url is None for one in liked.nearest)


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
