"""The library for programs: it answers what the server answers, shows what it found, and does what its docs say."""

import base64
import io
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sketch_search import Gallery, Photo, Remote, UserError, encode, rank
from sketch_search.answers import Results
from sketch_search.indexer.commands import Work
from sketch_search.model import Matcher, load
from sketch_search.model.engine import unit
from sketch_search.model.errors import UnsupportedImage
from sketch_search.model.torch.zse import find_device
from sketch_search.service.engine import open_matcher as of_the_service
from sketch_search.service.settings import Settings
from tests.pictures import encoded
from tests.service.small_gallery import PHOTOS, draw_photo, draw_sketch


@pytest.fixture(scope="module")
def opened(settings: Settings) -> Iterator[Gallery]:
    with Gallery(settings) as gallery:
        yield gallery


def test_a_photo_found_is_a_file_on_this_machine_and_a_picture(opened: Gallery, gallery: Path, sketch: bytes) -> None:
    found = opened.search(sketch, k=4)
    assert len(opened) == PHOTOS
    assert [photo.rank for photo in found] == [1, 2, 3, 4]
    assert [photo.score for photo in found] == sorted((photo.score for photo in found), reverse=True)
    for photo in found:
        assert Path(photo.path).is_relative_to(gallery)
        assert photo.read() == Path(photo.path).read_bytes()
        with Image.open(photo.path) as picture:
            assert photo.image().size == picture.size
        assert photo.thumbnail(32)[:2] == b"\xff\xd8"
    names = {"id", "path", "paths", "score", "rank", "copies"}
    assert all(asdict(photo).keys() == names for photo in found)
    for kept in (pickle.loads(pickle.dumps(found[0])), deepcopy(found[0]), Photo(**asdict(found[0]))):
        assert kept == found[0]
        with pytest.raises(UserError, match="search again"):
            kept.read()
    again = opened.search(like=[found[0]], k=1)
    assert again[0] == replace(found[0], score=again[0].score)
    assert asdict(opened.groups(sketch, k=1)[0])["best"].keys() == names


def test_the_vectors_of_an_index_are_those_that_pictures_have(opened: Gallery, weights: Path) -> None:
    ids, vectors = opened.vectors()
    assert ids.tolist() == sorted(ids.tolist())
    assert vectors.shape == (PHOTOS, opened.matcher.config.width)
    assert vectors.dtype == np.float16
    for id, vector in list(zip(ids.tolist(), vectors, strict=True))[::5]:
        own = encode([opened.engine.gallery.open_photo(id).whole()], weights=str(weights))[0]
        assert own @ vector > 0.999


def test_a_gallery_that_is_closed_says_so(settings: Settings, sketch: bytes) -> None:
    with Gallery(settings) as opened:
        (best,) = opened.search(sketch, k=1)
    opened.close()
    for use in (lambda: opened.search(sketch), best.read, best.thumbnail, lambda: len(opened)):
        with pytest.raises(ValueError, match="this gallery is closed; open it again"):
            use()


def test_an_explanation_is_pairs_of_cells_as_arrays(opened: Gallery, remote: Remote, sketch: bytes) -> None:
    best = opened.search(sketch, k=1)[0]
    here, there = opened.explain(sketch, best), remote.explain(sketch, best.id)
    for why in (here, there):
        assert why.sketch_cells.shape == why.photo_cells.shape == why.cosines.shape
        assert len(why.cosines) > 0
        assert bool((np.diff(why.cosines) <= 0).all())
        assert int(max(why.sketch_cells.max(), why.photo_cells.max())) < why.grid**2
    np.testing.assert_array_equal(here.photo_cells, there.photo_cells)
    assert here.answer.photo_cells


def test_a_notebook_shows_results_photos_and_explanations(opened: Gallery, sketch: bytes) -> None:
    found = opened.search(sketch, k=2)
    shown = found._repr_html_()
    assert shown.count("<img") == 2
    assert Path(found[0].path).name in shown
    assert repr(Results([replace(found[0], path="a\x1b[2J")])) == "Results(a\\x1b[2J)"
    assert found[0]._repr_jpeg_()[:2] == b"\xff\xd8"
    assert opened.explain(sketch, found[0])._repr_png_()[:4] == b"\x89PNG"


def test_pictures_are_ranked_as_the_index_does(opened: Gallery, weights: Path, matcher: Matcher, sketch: bytes) -> None:
    place, pictures = str(weights), [draw_photo(seed) for seed in range(PHOTOS)]
    vectors, drawn = encode(pictures, weights=place), encode([sketch], "sketch", weights=place)
    assert vectors.shape == (PHOTOS, drawn.shape[1])
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert encode([], weights=place).shape == (0, drawn.shape[1])
    searched = matcher.encode(matcher.prepare(draw_sketch(), "sketch")[None], "sketch").ret
    np.testing.assert_allclose(drawn, unit(searched), atol=1e-4)
    order = np.argsort(-(vectors @ drawn[0]), kind="stable")
    best = opened.search(sketch, k=1, method="ret", nprobe="all")[0]
    assert encoded(pictures[order[0]]) == best.read()
    ranked = rank(sketch, pictures, weights=place)
    assert sorted(number for number, _ in ranked) == list(range(PHOTOS))
    assert [score for _, score in ranked] == sorted((score for _, score in ranked), reverse=True)
    best = opened.search(sketch, k=1, nprobe="all", diffuse=False)[0]
    assert encoded(pictures[ranked[0][0]]) == best.read()
    assert rank(sketch, [], weights=place) == []


def test_opening_a_folder_indexes_it_once_and_again_what_is_new(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, sketch: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SKETCH_SEARCH_INDEX", str(tmp_path / "data" / "index"))
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(3):
        draw_photo(seed).save(photos / f"{seed}.png")
    with Gallery.open(photos, weights=weights, progress=False) as first:
        assert len(first) == 3
        place = first.engine._settings.index
    assert place is not None
    assert place.parent == tmp_path / "data" / "galleries"
    draw_photo(3).save(photos / "3.png")
    with Gallery.open(photos, weights=weights, progress=False, update=False) as old:
        assert len(old) == 3
    with Gallery.open(photos, weights=weights, progress=False) as new:
        assert len(new) == 4
        assert {Path(photo.path).parent for photo in new.search(sketch)} == {photos}
    # The default index serves, where it has just this folder; where it has others, too, it is named.
    with Gallery.open(photos, index=tmp_path / "data" / "index", weights=weights, progress=False):
        pass
    with Gallery.open(photos, weights=weights, progress=False) as default:
        assert default.engine._settings.index == tmp_path / "data" / "index"
    capsys.readouterr()
    (tmp_path / "more").mkdir()
    draw_photo(5).save(tmp_path / "more" / "5.png")
    Gallery.open(photos, tmp_path / "more", index=tmp_path / "data" / "index", weights=weights).close()
    shutil.rmtree(place)
    Gallery.open(photos, weights=weights).close()
    told = capsys.readouterr().err
    assert "for the first time" in told
    assert "Gallery.open() without folders" in told
    Gallery.open(photos, weights=weights).close()
    assert "first time" not in capsys.readouterr().err


def test_an_index_of_other_folders_is_left_alone(weights: Path, tmp_path: Path, sketch: bytes) -> None:
    for seed, name in enumerate(("one", "other")):
        (tmp_path / name).mkdir()
        draw_photo(seed).save(tmp_path / name / "photo.png")
    opening: dict[str, Any] = {"index": tmp_path / "index", "weights": weights, "progress": False}
    with pytest.raises(UserError, match=r"there is no index at .* yet; name your photos"):
        Gallery.open(**opening)
    Gallery.open(tmp_path / "one", **opening).close()
    for update in (True, False):
        with pytest.raises(UserError, match=rf"has other folders: {re.escape(str(tmp_path / 'one'))}\."):
            Gallery.open(tmp_path / "other", update=update, **opening)
    with Gallery.open(tmp_path / "one", tmp_path / "other", **opening) as both:
        assert len(both) == 2
    (tmp_path / "other" / "photo.png").rename(tmp_path / "other" / "photo.txt")
    with (
        pytest.warns(UserWarning, match="it had photos but is empty now"),
        Gallery.open(tmp_path / "one", tmp_path / "other", **opening) as same,
    ):
        assert len(same) == 2


def test_impossible_calls_raise_errors(opened: Gallery, remote: Remote, weights: Path, tmp_path: Path) -> None:
    def check(error: type[Exception], told: str, call: Callable[..., object], *given: object, **named: object) -> None:
        with pytest.raises(error, match=told or None):
            call(*given, **named)

    for gallery in (opened, remote):
        check(UserError, "image", gallery.search, b"no picture")
        check(UnsupportedImage, "", gallery.search, __file__)
        check(ValueError, r"^k must be at least 1, not 0$", gallery.search, b"", k=0)
        how = "(name one as results show it|pass the photo or its id)"
        check(UserError, rf"cat\.png.*{how}", gallery.explain, b"", "cat.png")
        nowhere = "below the folder 'nowhere'; write it as results show paths"
        check(UserError, nowhere, gallery.search, encoded(draw_sketch()), folder="nowhere")
        for size in (5, 15, 1025, "x"):
            check(ValueError, r"^size must be", gallery.search(like=1, k=1)[0].thumbnail, size)
        check(ValueError, "leave view out", gallery.groups, like=1, view="photos")
        for liked in (1.5, b"1", [1.5], True, object()):
            check(TypeError, "name a photo by its result, its id or its path", gallery.search, like=liked)
        for wrong in (-1, "9" * 30):
            check(ValueError, "like", gallery.search, like=wrong)
        check(UserError, r"a\\x00b", gallery.search, unlike="a\0b")
    for folder in (tmp_path / "nowhere", "http://[::", "a\0b", "~nobody-of-this-name/x"):
        check(UserError, "", Gallery.open, folder, index=tmp_path / "index", progress=False)
    check(UserError, r"^no/where does not exist", Gallery.open, "no/where", index=tmp_path / "index", progress=False)
    for file in (tmp_path / "nothing.png", "a\0b", "~nobody-of-this-name/x.png", "http://[::"):
        check(OSError, r"No such file|home folder .* is unknown", opened.search, file)
    check(TypeError, "a picture must be a path", opened.search, 7)
    check(TypeError, "'rb'", opened.search, io.StringIO("cat"))
    for pixels, reason in (
        (np.full((9, 9), 256), "from 0 to 255"),
        (np.full((9, 9), np.nan), "from 0 to 255"),
        (np.zeros((4, 9, 9, 3)), "pass one picture"),
        (np.zeros(15), "pass one picture"),
    ):
        check(ValueError, reason, opened.search, pixels)
    check(TypeError, "pixels must be numbers", opened.search, np.array([["a", "b"]]))
    for call in (Gallery.open, partial(encode, []), partial(rank, "cat.png", [])):
        check(ValueError, r"^device must be 'auto', 'cpu' or 'cuda', not 'mps'$", call, device="mps")
    check(UserError, r"^device 'mps' cannot be used here \([^\n]{1,150}\); use cpu$", find_device, "mps")
    check(TypeError, "pass a list", encode, "cat.png", weights=str(weights))
    check(TypeError, "pass a list", rank, "cat.png", draw_photo(0))


def test_a_sketch_may_be_a_picture_pixels_a_file_or_text(opened: Gallery, sketch: bytes, drawn: Path) -> None:
    with Image.open(io.BytesIO(sketch)) as image:
        grey = np.asarray(image.convert("L"))

    def found(picture: Any) -> list[tuple[int, float]]:
        return [(photo.id, photo.score) for photo in opened.search(picture, k=3)]

    text = base64.b64encode(sketch).decode()
    with drawn.open("rb") as file:
        streams = (io.BytesIO(sketch), file, bytearray(sketch), memoryview(sketch), f"data:image/png;base64,{text}")
        for other in (*streams, drawn, str(drawn), draw_sketch(), np.asarray(draw_sketch())):
            assert found(other) == found(sketch)
    three = np.stack([grey] * 3, axis=-1)
    kinds = (grey[..., None], grey.astype(np.int64), grey.astype(np.float64), grey / np.float32(255), three)
    for pixels in (*kinds, np.moveaxis(three, -1, 0), three[None], grey.reshape(-1)):
        assert found(pixels) == found(grey)
    assert found(grey > 128) == found(np.where(grey > 128, 255, 0).astype(np.uint8))


def test_a_photo_is_liked_as_found_by_its_id_or_its_path(opened: Gallery, remote: Remote, sketch: bytes) -> None:
    best = opened.search(sketch, k=1)[0]
    shown = opened.search(sketch, k=1).answer.results[0].paths[0]
    expected = [photo.id for photo in opened.search(like=[best], k=3)]
    names: list[Any] = [best, best.id, str(best.id), np.int64(best.id), best.path, Path(best.path), shown, (shown,)]
    for liked in names:
        assert [photo.id for photo in opened.search(like=liked, k=3)] == expected
    assert opened.explain(sketch, shown).answer.id == best.id
    for liked in (best, best.id, str(best.id)):
        assert [photo.id for photo in remote.search(like=liked, k=3)] == expected
    assert opened.search(like="12", k=1)[0].id == remote.search(like=12, k=1)[0].id == 12
    assert opened.search(sketch, like=None, unlike=None, k=1)[0] == best
    alone, listed = (opened.search(sketch, folder=folder).answer.results for folder in ("größe", ["größe"]))
    assert alone == listed


DOCS = Path(__file__).parents[2] / "docs" / "python.md"
BLOCK = re.compile(r"(<!-- not run: [^>]*-->\n)?```python\n(.*?)```", re.DOTALL)


def test_each_block_of_the_tutorial_runs_after_those_before_it(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = tmp_path / "Pictures"
    pictures.mkdir()
    for seed in range(12):
        draw_photo(seed).save(pictures / f"{seed}.png")
    draw_sketch().save(tmp_path / "cat.png")
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "HOME": tmp_path,
        "SKETCH_SEARCH_WEIGHTS": weights,
        "SKETCH_SEARCH_INDEX": tmp_path / "index",
    }.items():
        monkeypatch.setenv(name, str(value))
    blocks = BLOCK.findall(DOCS.read_text(encoding="utf-8"))
    assert sum(1 for left_out, _ in blocks if left_out) == 1
    known: dict[str, Any] = {}
    for left_out, code in blocks:
        if left_out:
            compile(code, str(DOCS), "exec")
        else:
            exec(compile(code, str(DOCS), "exec"), known)
    shown = capsys.readouterr().out
    assert str(pictures) in shown
    assert "is most like cell" in shown


def test_indexing_by_command_serving_and_the_library_compute_in_int8_by_onnx_runtime_on_a_cpu() -> None:
    by_command = Work(Path("index"), None, "cpu", quiet=True).matcher()
    by_server = of_the_service(Settings.model_validate({"device": "cpu"}))
    assert by_command.dtype == by_server.dtype == load().dtype == "int8"
