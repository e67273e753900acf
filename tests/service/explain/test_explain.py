"""Explanations by library, HTTP and command, against what the network says of files and what searches find."""

import base64
import io
import json
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image, ImageColor

from sketch_search.indexer import Index
from sketch_search.model import Matcher
from sketch_search.model.engine import unit
from sketch_search.model.errors import UserError
from sketch_search.model.images import Drawing
from sketch_search.model.images.files import open_image
from sketch_search.service.commands import main
from sketch_search.service.commands.search import explain as explain_by_command
from sketch_search.service.errors import BadSearch
from sketch_search.service.explain import _COLOURS, _GAP, explain, side_by_side
from sketch_search.service.schemas.explain import ExplainParams, ExplainResponse, ShownThing
from sketch_search.service.schemas.search import DetectedBox
from sketch_search.service.settings import Settings
from tests.searching import Searcher
from tests.service.small_gallery import draw_sketch


def decoded(url: str) -> Image.Image:
    kind, _, data = url.partition(";base64,")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.format is not None
    assert kind == f"data:image/{image.format.lower()}"
    return image


@pytest.fixture(scope="module")
def response(searcher: Searcher) -> ExplainResponse:
    pixels = searcher.matcher.preprocessing.pixels(draw_sketch(), "sketch")
    return explain(searcher, Drawing.of(pixels), ExplainParams(photo=[5, 12, 9]))


def test_photos_are_explained_by_file(response: ExplainResponse, index: Index, matcher: Matcher, gallery: Path) -> None:
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


def test_shown_squares_are_those_seen(response: ExplainResponse, index: Index, matcher: Matcher, gallery: Path) -> None:
    pixels = np.asarray(decoded(response.sketch.image))
    assert np.array_equal(pixels, matcher.preprocessing.pixels(draw_sketch(), "sketch"))
    for explained in response.photos:
        image = decoded(explained.image)
        assert image.format == "JPEG"
        square = matcher.preprocessing.pixels(open_image(gallery / index.photo(explained.id).paths[0]), "photo")
        assert np.abs(np.asarray(image).astype(int) - square).mean() < 12  # JPEG is not exact, but no other photo


def test_a_liked_photo_replaces_the_sketch(searcher: Searcher, index: Index, matcher: Matcher, gallery: Path) -> None:
    response = explain(searcher, None, ExplainParams(photo=[5, 12], like=5))
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
    assert (other.relation_score, other.cross_attention, other.influence) == (None, None, [])


def test_the_photos_nearest_to_a_sketch_are_first_by_ret(searcher: Searcher, response: ExplainResponse) -> None:
    hits = searcher.find_sketch(method="ret", diffuse=False).results
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


def read(folder: Path) -> ExplainResponse:
    return ExplainResponse.model_validate_json((folder / "explanation.json").read_bytes())


def why(
    settings: Settings, sketch: Path | None, folder: Path, *photos: str, like: str | None = None
) -> ExplainResponse:
    assert explain_by_command(settings, [sketch] if sketch else [], photos, folder, like=like, kind="sketch") == 0
    return read(folder)


def test_why_photos_are_like_one_of_the_index_is_said_without_it(settings: Settings, tmp_path: Path) -> None:
    document = why(settings, None, tmp_path, like="p01.png")
    assert (len(document.photos), document.method) == (3, "ret")
    assert all("p01.png" not in one.paths for one in (*document.photos, *document.nearest))
    with pytest.raises(BadSearch, match="The query is empty"):
        why(settings, None, tmp_path)


def test_pictures_to_explain_are_sent_raw_or_in_a_form(http: httpx.Client, sketch: bytes) -> None:
    raw = http.post("/explain", params={"photo": [9, 4]}, content=sketch)
    assert [photo.id for photo in ExplainResponse.model_validate_json(raw.content).photos] == [9, 4]
    form = http.post("/explain", params={"photo": [9, 4]}, files={"file": ("a.png", sketch, "image/png")})
    assert form.json()["photos"] == raw.json()["photos"]
    liked = http.post("/explain", params={"photo": [3, 4], "like": 7})
    assert liked.status_code == 200, liked.text
    sent = http.post("/explain", params={"photo": [3, 4], "kind": "photo"}, content=http.get("/photos/7").content)
    assert sent.json()["photos"] == liked.json()["photos"]


def test_the_command_writes_a_picture_for_each_photo_that_a_search_finds_and_all_data(
    tmp_path: Path, settings: Settings, drawn: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    out = tmp_path / "new" / "why"
    common = ["--index", str(settings.index), "--weights", str(settings.weights)]
    assert main(["explain", *common, str(drawn), "-o", str(out)]) == 0
    assert sorted(file.name for file in out.iterdir()) == ["1.png", "2.png", "3.png", "explanation.json"]
    said = capsys.readouterr()
    assert str(out / "explanation.json") in said.out
    assert all(part in said.err for part in ("with those of 3 photos", "1/13 [", "frames of one colour match best"))
    answer, picture = read(out), Image.open(out / "1.png")
    (out / "2.png").write_bytes(drawn.read_bytes())
    with pytest.raises(UserError, match=r"2\.png was not written by this program"):
        why(settings, drawn, out)
    assert picture.width > 2 * picture.height
    assert all(photo.influence and photo.nearest for photo in answer.photos)
    assert main(["search", *common, str(drawn), "--k", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["results"]
    assert [photo.paths[0] for photo in answer.photos] == [result["paths"][0] for result in found]
    cells = dict.fromkeys(match.photo_cell for match in answer.photos[0].matches)
    side = answer.sketch.picture().width
    for number, colour in zip(cells, _COLOURS, strict=False):
        row, column = divmod(number, answer.grid)
        corner = (side + _GAP + int(column * side / answer.grid) + 1, int(row * side / answer.grid) + 1)
        assert picture.getpixel(corner) == ImageColor.getrgb(colour), "a frame of each colour is seen in the photo"
    dog = DetectedBox(kind="dog", certainty=0.9, box=(0.2, 0.4, 0.8, 1))
    thing = ShownThing(cell=0, cells=(0,), detected=dog, cosine=0.5, colour="#000000", colour_distance=None)
    framed = side_by_side(answer.sketch.picture(), answer.photos[0].model_copy(update={"things": (thing,)}), (), 14)
    assert {framed.getpixel((side + _GAP + round(0.8 * (side - 1)), y)) for y in range(3 * side // 4, side)} == {
        (255,) * 3
    }
