import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sketch_search import indexer, model
from tests.indexer.galleries import Collection, save_photos, shorten, sign
from tests.indexer.killed_builds import StopAfter, Stopped


def edit_manifest(index: Path, **changes: object) -> None:
    path = index / "g000001" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def stopped(collection: Collection) -> Path:
    """Stops a first build after 8 of its 12 photos, and returns the folder that it has left."""
    with pytest.raises(Stopped):
        collection.build(progress=StopAfter(8), batch=4)
    (left,) = collection.index.glob(".building-*")
    return left


def test_a_stopped_first_build_says_so_and_is_replaced(collection: Collection, other_matcher: model.Matcher) -> None:
    stopped(collection)
    with pytest.raises(
        indexer.IndexRefused, match="has not finished; if it was stopped, `sketch-search index FOLDER` with the"
    ):
        collection.open()
    assert collection.build(other_matcher).encoded == 12
    assert not list(collection.index.glob(".building-*"))


FORMATS = {
    9: "has index format 9, which this program no longer reads; run `sketch-search index build FOLDER` .* --from FILE`",
    16: "has index format 16, and this program reads 15; update the program",
}


@pytest.mark.parametrize(("version", "sentence"), FORMATS.items())
def test_an_index_of_another_format_is_refused_by_everything(version: int, sentence: str, copied: Collection) -> None:
    edit_manifest(copied.index, format_version=version, something_else=True)
    before = {path.name for path in copied.index.iterdir()}
    for work in (
        lambda: copied.open(),
        lambda: indexer.read_summary(copied.index),
        lambda: copied.update(),
        lambda: indexer.remove([], copied.index, ids=[1]),
        lambda: indexer.verify(copied.index),
    ):
        with pytest.raises(indexer.IndexRefused, match=sentence):
            work()
    assert {path.name for path in copied.index.iterdir()} == before


@pytest.mark.parametrize(
    ("field", "sentence"),
    [
        ("photo_sha256", r"other photo weights .* --weights, or run"),
        ("preprocessing_fingerprint", "other image preprocessing"),
    ],
)
def test_an_index_of_other_weights_or_pixels_is_refused(field: str, sentence: str, copied: Collection) -> None:
    edit_manifest(copied.index, **{field: "0" * 64})
    with pytest.raises(indexer.IndexRefused, match=sentence):
        copied.open()


ARRAYS = ("clusters", "centroid_tokens", "centroid_positions", "centroid_ret", "places", "vectors")
FILES = ["g000001/photos.sqlite", *(f"g000001/{name}.npy" for name in ARRAYS)]
FILES += [f"segments/*/{name}.npy" for name in ("tokens", "scales", "positions")]


@pytest.mark.parametrize(("damage", "word"), [(Path.unlink, "is missing"), (shorten, "bytes instead of")])
@pytest.mark.parametrize("name", FILES)
def test_a_missing_or_short_file_is_refused(
    name: str, damage: Callable[[Path], None], word: str, copied: Collection
) -> None:
    (path,) = copied.index.glob(name)
    damage(path)
    with pytest.raises(indexer.IndexRefused, match=f"{path.name} .*{word}.* index build`"):
        copied.open()
    assert len(indexer.verify(copied.index)) == 1


def test_an_array_that_the_manifest_vouches_for_is_not_unpickled(copied: Collection) -> None:
    np.save(copied.index / "g000001" / "places.npy", np.array([print], dtype=object), allow_pickle=True)
    sign(copied.index)
    with pytest.raises(indexer.IndexDamaged, match=r"places\.npy is damaged"):
        copied.open()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("CURRENT", text) for text in ("", "g1", "../elsewhere", "g000009")),
        *(("g000001/manifest.json", text) for text in ("", "[]", '{"format_version": 10}', "\udcff", "[" * 100_000)),
    ],
    ids=lambda text: text[:30],
)
def test_a_damaged_current_file_or_manifest_is_refused(name: str, text: str, copied: Collection) -> None:
    (copied.index / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    # Without a manifest nothing says which folders are to be built again.
    with pytest.raises(indexer.IndexRefused, match=r"delete .*/index and build again"):
        copied.open()


@pytest.mark.parametrize("name", ["manifest.json", "clusters.npy", "photos.sqlite"])
def test_an_unreadable_file_is_not_called_missing(name: str, copied: Collection) -> None:
    path = copied.index / "g000001" / name
    path.unlink()
    path.symlink_to(path)  # opening it fails for the administrator, too, whom no permission stops
    readers: list[Callable[[], object]] = [copied.open]
    if name != "clusters.npy":
        readers += [lambda: indexer.read_summary(copied.index), lambda: indexer.verify(copied.index)]
    for read in readers:
        with pytest.raises(indexer.IndexRefused, match="check its permissions") as told:
            read()
        assert f"{name} cannot be read: Too many levels" in str(told.value)
        assert "missing" not in str(told.value)
        assert "delete" not in str(told.value)


@pytest.mark.parametrize("name", ["g000099", ".building-x", "segments/s000001-deadbeef", "holiday"])
def test_a_stray_link_in_the_folder_of_an_index_is_left_alone(name: str, copied: Collection, tmp_path: Path) -> None:
    kept = save_photos(tmp_path / "kept", 3)
    (copied.index / name).symlink_to(kept)
    indexer.remove([copied.photos / "Ännchen 001.png"], copied.index)
    assert copied.update().photos == 11
    assert (copied.index / name).is_symlink()
    assert len(list(kept.rglob("*.png"))) == 3
    assert indexer.verify(copied.index) == []


@pytest.mark.parametrize("name", [".CURRENT.partial", ".progress.json.partial"])
def test_a_build_writes_through_no_link_to_a_file(name: str, copied: Collection, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (copied.index / name).symlink_to(mine)
    assert copied.update(recluster=True).generation == "g000002"
    assert mine.read_text() == "mine"


def halve(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def shorten_rows(file: Path) -> None:
    (tokens,) = file.parent.parent.glob("segments/*/tokens.npy")
    halve(tokens)


def pickle_rows(file: Path) -> None:
    np.save(file.with_name("vectors.npy"), np.array([print] * 8))


@pytest.mark.parametrize("change", [halve, shorten_rows, pickle_rows])
def test_a_database_of_no_build_is_begun_anew(change: Callable[[Path], None], collection: Collection) -> None:
    change(stopped(collection) / "build.sqlite")
    assert collection.build().encoded == 12


def test_roots_can_be_mapped_and_no_original_is_read_by_a_link(built_once: Collection, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(built_once.photos, tmp_path / "moved"))
    for name in ("in here", "Ännchen 001.png"):
        (moved / name).rename(tmp_path / name)
        (moved / name).symlink_to(tmp_path / name)
    with indexer.open_index(built_once.index, built_once.matcher, gallery_roots=[moved]) as index:
        content = (moved / "Ännchen 002.png").read_bytes()
        assert index.open_photo(index.photo_at("Ännchen 002.png").id) == content
        assert Path(index.address_of("Ännchen 002.png")).read_bytes() == content
        for name in ("Ännchen 001.png", "in here/Ännchen 000.png"):
            with pytest.raises(indexer.PhotoUnavailable, match=r"can no longer be read \("):
                index.open_photo(index.photo_at(name).id)
    with pytest.raises(indexer.IndexRefused, match="1 gallery root"):
        indexer.open_index(built_once.index, built_once.matcher, gallery_roots=[moved, moved])
