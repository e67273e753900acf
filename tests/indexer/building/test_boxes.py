import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sketch_search import model
from sketch_search.indexer import Progress, read_summary, remove, verify
from sketch_search.indexer.building import staging
from sketch_search.indexer.commands import main
from sketch_search.indexer.samples import SKETCHED
from sketch_search.indexer.store.files import FileContent, FileStamp, hash_file
from sketch_search.indexer.store.folders import LocalFolder
from sketch_search.indexer.store.generation import FORMAT_VERSION
from sketch_search.indexer.store.reader import Index
from sketch_search.model.engine.detector import NO_KIND, SIZE, Detector, no_boxes
from sketch_search.model.images import find_parts, open_image
from sketch_search.model.images.preprocess import fit_photo
from tests.indexer.galleries import (
    ORDINARY,
    Collection,
    current_catalog,
    edit_manifest,
    save_parted,
    save_photo,
    shorten,
)
from tests.indexer.killed_builds import StopAfter, Stopped
from tests.pictures import panorama

PORTRAIT = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
#: Of the files, those with boxes: the portrait, whole, turned, and its upper half.
COUNT = 7


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory, default: model.Matcher) -> Collection:
    folder = tmp_path_factory.mktemp("boxes")
    photos, portrait = folder / "photos", Image.open(PORTRAIT)
    photos.mkdir()
    shutil.copy(PORTRAIT, photos / "portrait.jpg")
    portrait.crop((0, 0, 512, 300)).save(photos / "half.png")
    portrait.convert("CMYK").resize((384, 450)).save(photos / "print.jpg")
    Image.new("RGB", (1, 1)).save(photos / "pixel.png")
    Image.new("RGB", (20_000, 200), "white").save(photos / "ribbon.png")
    for number in range(2):
        save_photo(photos / f"made {number}.png", number)
    collection = Collection(photos, folder / "index", default)
    collection.build()
    return collection


@pytest.fixture
def boxed(once: Collection, tmp_path: Path) -> Collection:
    photos = Path(shutil.copytree(once.photos, tmp_path / "photos"))
    copied = Collection(photos, Path(shutil.copytree(once.index, tmp_path / "index")), once.matcher)
    roots = [{"name": "photos", "path": str(photos)}]
    edit_manifest(copied.index, roots=roots)
    return copied


def boxes_of(collection: Collection) -> dict[str, NDArray[np.uint8]]:
    """Returns the boxes of all photos of an index, by path."""
    with collection.open() as index:
        boxes, ids = index.photo_boxes(index.wholes), index.ids[index.wholes].tolist()
        return {index.photo(number).paths[0]: own for number, own in zip(ids, boxes, strict=True)}


def same(first: dict[str, NDArray[np.uint8]], second: dict[str, NDArray[np.uint8]]) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[path], second[path]) for path in first)


def segment_files(index: Path) -> dict[str, str]:
    return {str(path.relative_to(index)): hash_file(path) for path in sorted((index / "segments").rglob("*.npy"))}


def test_photos_of_every_kind_are_indexed_with_their_boxes(once: Collection) -> None:
    found, detector = boxes_of(once), Detector()
    for name in ("half.png", "ribbon.png", "pixel.png"):
        assert np.array_equal(found[name], detector.detect(fit_photo(Image.open(once.photos / name), SIZE)))
    assert (found["portrait.jpg"][:2, 0] == [0, 27]).all()
    assert (found["print.jpg"][:2, 0] == [0, 27]).all()
    assert np.array_equal(found["pixel.png"], no_boxes(1)[0])
    summary = read_summary(once.index)
    used = [(boxes[:, 0] != NO_KIND).sum() for boxes in found.values()]
    assert (summary.boxes, summary.photos_with_boxes) == (sum(used), sum(number > 0 for number in used))
    assert (summary.manifest.format_version, summary.manifest.unseen) == (FORMAT_VERSION, 0)
    assert summary.manifest.computed == (once.matcher.arithmetic,)
    assert (once.index / "g000001" / "boxes.npy").stat().st_size <= 128 + 96 * summary.manifest.counts.rows


def test_boxes_of_another_detector_are_found_again(
    boxed: Collection, once: Collection, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_manifest(boxed.index, detector="another")
    before = segment_files(boxed.index)
    report = boxed.build(progress=Progress(bar=True))
    assert (report.encoded, report.boxed, report.changed) == (0, COUNT, True)
    assert f"{COUNT} photos were indexed without boxes of their things; finding these takes a" in (
        capsys.readouterr().err
    )
    assert segment_files(boxed.index) == before
    assert same(boxes_of(boxed), boxes_of(once))
    again = boxed.build()
    assert (again.changed, again.boxed) == (False, 0)


def test_unread_photos_get_boxes_later(
    boxed: Collection, once: Collection, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_manifest(boxed.index, detector="another")
    read = LocalFolder.read

    def broken(folder: LocalFolder, path: str, stamp: FileStamp | None = None) -> FileContent:
        if path == "portrait.jpg":
            raise OSError(errno.EIO, "Input/output error", path)
        return read(folder, path, stamp)

    with monkeypatch.context() as patch:
        patch.setattr(LocalFolder, "read", broken)
        assert boxed.build().boxed == COUNT - 1
    assert main(["info", "--index", str(boxed.index)]) == 0
    assert "1 still lack them, which `sketch-search index build` adds" in capsys.readouterr().out
    found, all_boxes = boxes_of(boxed), boxes_of(once)
    assert np.array_equal(found.pop("portrait.jpg"), no_boxes(1)[0])
    assert all(np.array_equal(own, all_boxes[path]) for path, own in found.items())
    assert boxed.build().boxed == 1
    assert same(boxes_of(boxed), all_boxes)


def test_finding_boxes_can_be_resumed(boxed: Collection, once: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    edit_manifest(boxed.index, detector="another")
    monkeypatch.setattr(staging, "_FIRST", 2)
    with pytest.raises(Stopped):
        # All files are read once before, since they were copied.
        boxed.build(progress=StopAfter(COUNT + 2))
    assert boxed.build().boxed == COUNT - 2
    assert same(boxes_of(boxed), boxes_of(once))


@pytest.mark.parametrize("damage", [Path.unlink, shorten, lambda path: path.write_bytes(b"")])
def test_damaged_boxes_are_reported_once_searched_without_and_found_again(
    boxed: Collection, once: Collection, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    path = boxed.index / "g000001" / "boxes.npy"
    damage(path)
    with boxed.open() as index:
        assert not index.boxes_kept
        assert np.array_equal(index.photo_boxes(np.arange(COUNT)), no_boxes(COUNT))
        assert len(index.photo_regions(np.arange(COUNT))[0]) == COUNT
    (record,) = caplog.records
    assert record.getMessage().startswith(f"Photos are searched without boxes: {path} is ")
    before, report = segment_files(boxed.index), boxed.build()
    assert (report.encoded, report.boxed, len(report.damaged)) == (0, COUNT, 1)
    assert str(path) in report.damaged[0]
    assert segment_files(boxed.index) == before
    assert same(boxes_of(boxed), boxes_of(once))
    assert verify(boxed.index) == []


def test_boxes_stay_with_their_photos_as_photos_come_and_go(boxed: Collection, once: Collection) -> None:
    expected = boxes_of(once)
    remove(["half.png"], boxed.index)
    del expected["half.png"]
    assert same(boxes_of(boxed), expected)
    (boxed.photos / "made 0.png").unlink()
    Image.open(PORTRAIT).crop((0, 0, 300, 600)).save(boxed.photos / "another.png")
    report = boxed.build(recluster=True)
    assert (report.encoded, report.boxed) == (1, 0)
    del expected["made 0.png"]
    found = boxes_of(boxed)
    assert (found.pop("another.png")[0, :2] > [-1, 100]).all()
    assert same(found, expected)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, matcher: model.Matcher) -> Collection:
    folder = tmp_path_factory.mktemp("parts")
    collection = Collection(save_parted(folder / "photos"), folder / "index", matcher)
    collection.build()
    return collection


@pytest.fixture
def parted(pages: Collection, tmp_path: Path) -> Collection:
    photos = Path(shutil.copytree(pages.photos, tmp_path / "photos"))
    changed = Collection(photos, tmp_path / "index", pages.matcher)
    changed.build()
    return changed


def held(index: Index) -> dict[str, list[bytes]]:
    """Returns all that is kept of each photo and its parts, by path."""
    rows: dict[str, list[bytes]] = {}
    kept = index.vectors.of(np.arange(len(index.ids))), index.photo_boxes(np.arange(len(index.ids)))
    tokens = index.photo_tokens(np.arange(len(index.ids)), scaled=False)
    for row, photo in enumerate(index.ids.tolist()):
        every = *(array[row].tobytes() for array in kept), tokens.features[row].tobytes()
        rows.setdefault(index.photo(photo).paths[0], []).append(b"".join(every))
    return rows


def of(collection: Collection) -> dict[str, list[bytes]]:
    with collection.open() as index:
        return held(index)


def test_parts_have_rows_and_their_photo_stays_one(pages: Collection) -> None:
    wide = len(find_parts(open_image(pages.photos / "5 wide.png")))
    with pages.open() as index:
        counts = {path: len(rows) - 1 for path, rows in held(index).items()}
        assert (counts.pop("4 page.png"), counts.pop("5 wide.png")) == (4, wide)
        assert {*counts.values()} == {0}
        assert index.photo_count == ORDINARY + 2 == len(index.wholes) == index.cluster_sizes.sum()
        assert index.ids[index.parts_of].tolist() == index.ids[index.parts].tolist()
        assert not np.isin(index.parts_of, index.parts).any()
    found = read_summary(pages.index).manifest.counts
    assert (found.photos, found.files, found.duplicates, found.parts) == (ORDINARY + 2, ORDINARY + 2, 0, 4 + wide)
    assert found.rows == found.photos + found.parts
    assert not pages.build().changed
    assert verify(pages.index) == []


def test_a_part_has_the_row_of_its_picture_alone(pages: Collection, tmp_path: Path) -> None:
    alone = Collection(tmp_path / "photos", tmp_path / "index", pages.matcher)
    alone.photos.mkdir()
    picture = open_image(pages.photos / "4 page.png")
    for number, frame in enumerate(find_parts(picture)):
        picture.crop(frame).save(alone.photos / f"{number}.png")
    alone.build()
    cut = of(alone)
    assert of(pages)["4 page.png"][1:] == [cut[f"{number}.png"][0] for number in range(4)]


def test_ordinary_photos_are_kept_as_without_pages_beside_them(pages: Collection, tmp_path: Path) -> None:
    ordinary = Collection(tmp_path / "photos", tmp_path / "index", pages.matcher)
    shutil.copytree(pages.photos, ordinary.photos, ignore=shutil.ignore_patterns("4 page*", "5 wide*"))
    ordinary.build()
    every = of(pages)
    assert of(ordinary) == {path: rows for path, rows in every.items() if path not in ("4 page.png", "5 wide.png")}
    assert read_summary(ordinary.index).manifest.counts.parts == 0


@pytest.mark.parametrize("options", [{}, {"recluster": True}, {"system": "two-stage"}, {"tokens": "none"}])
def test_parts_come_go_and_move_with_their_photos(parted: Collection, options: dict[str, Any]) -> None:
    parted.build(**options)
    before = of(parted)
    panorama(SKETCHED[2:6]).save(parted.photos / "6 new.png")
    (parted.photos / "0 apple.png").rename(parted.photos / "9 apple.png")
    (parted.photos / "5 wide.png").unlink()
    (parted.photos / "4 page.png").rename(parted.photos / "4 renamed.png")
    assert parted.build(**options, allow_loss=True).encoded == 1
    anew = Collection(parted.photos, parted.index.with_name("anew"), parted.matcher)
    anew.build(**options)
    assert of(parted) == of(anew)
    assert of(parted)["4 renamed.png"] == before["4 page.png"]
    assert "5 wide.png" not in of(parted)


def test_a_page_that_leaves_and_comes_back_has_its_parts_again(parted: Collection) -> None:
    before = of(parted)
    (parted.photos / "4 page.png").rename(away := parted.photos.with_name("page.png"))
    parted.build(allow_loss=True)
    assert [file[8] for file in current_catalog(parted.index) if file[2] == "4 page.png"] == ["gone"]
    assert read_summary(parted.index).manifest.counts.parts == len(before["5 wide.png"]) - 1
    away.rename(parted.photos / "4 page.png")
    parted.build()
    assert of(parted) == before
    remove(["5 wide.png"], parted.index)
    remaining = {path: rows for path, rows in before.items() if path != "5 wide.png"}
    assert of(parted) == remaining
    parted.build()
    assert of(parted) == remaining
    parted.build(added=[parted.photos / "5 wide.png"])
    after, width = of(parted), parted.matcher.config.width
    assert {path: len(rows) for path, rows in after.items()} == {path: len(rows) for path, rows in before.items()}
    assert remaining.items() <= after.items()
    # Encoded beside other photos than before, its last bits differ.
    again, first = ([np.frombuffer(row, np.float32, width) for row in rows["5 wide.png"]] for rows in (after, before))
    np.testing.assert_allclose(again, first, atol=0.01)
