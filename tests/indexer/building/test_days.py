import os
import shutil
from datetime import date
from pathlib import Path

import pytest

from sketch_search import model
from sketch_search.indexer import PhotoFilter
from tests.indexer.clip_models import saved_clip
from tests.indexer.galleries import Collection, current_catalog, save_photo
from tests.pictures import SHAPES, dated, photo

TAKEN = date(2019, 8, 7)
CHANGED = date(2023, 5, 6)
# The text in which each file gives its day, and the day that counts.
SAID = {
    "camera.jpg": ("2019:08:07 10:11:12", TAKEN),
    "turned.jpg": ("2019:08:07 10:11:12", TAKEN),
    "scan.tif": ("2019:08:07 10:11:12", TAKEN),
    "never set.jpg": ("0000:00:00 00:00:00", None),
    "words.jpg": ("a sunny day", None),
    "far future.png": ("9999:12:31 00:00:00", None),
}
DAYS = {**{name: day for name, (_, day) in SAID.items()}, "broken block.jpg": None, "says nothing.png": None}


@pytest.fixture
def collection(tmp_path: Path, index_path: Path, matcher: model.Matcher) -> Collection:
    """Photos that say their day, or no day, or nonsense; their files were changed on the same day."""
    folder = tmp_path / "photos"
    folder.mkdir()
    kinds = {".jpg": "JPEG", ".tif": "TIFF", ".png": "PNG"}
    for number, (name, (said, _)) in enumerate(SAID.items()):
        file, shown = folder / name, photo(SHAPES[number], 48, seed=number)
        file.write_bytes(dated(shown, said, kinds[file.suffix], orientation=6 if name == "turned.jpg" else 1))
    broken = (folder / "camera.jpg").read_bytes().replace(b"II*\0", b"IIII").replace(b"MM\0*", b"MMMM")
    (folder / "broken block.jpg").write_bytes(broken)
    save_photo(folder / "says nothing.png", 7)
    for file in folder.iterdir():
        os.utime(file, (1683374400, 1683374400))  # noon of the day CHANGED
    return Collection(folder, index_path, matcher)


def days(collection: Collection) -> dict[str, date | None]:
    columns = current_catalog(collection.index)
    taken = {path: day for _, _, path, *_, day, status, _, _, _, _ in columns if status == "indexed"}
    return {path: None if day is None else date.fromordinal(day) for path, day in taken.items()}


def found(collection: Collection, after: date | None = None, before: date | None = None) -> set[str]:
    with collection.open() as opened:
        passing = opened.passing(PhotoFilter(after=after, before=before))
        return {path for photo in opened.ids[passing].tolist() for path in opened.photo(photo).paths}


@pytest.mark.parametrize("embedder", ["ret", "clip"])  # the latter takes whole pictures
def test_photos_are_found_by_the_day_taken_or_changed(embedder: str, collection: Collection, tmp_path: Path) -> None:
    clip = f"clip:{saved_clip(tmp_path / 'clip')}"
    report = collection.build(clusters=2, embedder=clip if embedder == "clip" else embedder)
    assert (report.photos, report.bad) == (len(DAYS), ())
    assert days(collection) == DAYS
    taken = {name for name, said in DAYS.items() if said}
    for after, before, expected in (
        (TAKEN, TAKEN, taken),
        (None, date(2019, 8, 6), set[str]()),
        (date(2019, 8, 8), None, DAYS.keys() - taken),
        (CHANGED, CHANGED, DAYS.keys() - taken),
        (TAKEN, None, set(DAYS)),
    ):
        assert found(collection, after, before) == expected


def test_the_next_build_keeps_the_days_and_a_copy_has_that_of_its_content(collection: Collection) -> None:
    collection.build(clusters=2)
    assert not collection.build().changed
    shutil.copy(collection.photos / "camera.jpg", collection.photos / "a copy.jpg")
    (collection.photos / "scan.tif").rename(collection.photos / "another name.tif")
    os.utime(collection.photos / "turned.jpg")
    report = collection.build()
    assert report.encoded == 0
    moved = {"another name.tif" if name == "scan.tif" else name: said for name, said in DAYS.items()}
    assert days(collection) == {**moved, "a copy.jpg": TAKEN}
    (collection.photos / "turned.jpg").write_bytes(dated(photo(SHAPES[1], 48), "2020:02:29 10:11:12"))
    collection.build(checksum=True)
    assert days(collection)["turned.jpg"] == date(2020, 2, 29)


def test_a_file_of_a_time_that_no_photo_can_have_is_of_no_day(collection: Collection) -> None:
    late = 2**63 + 86400 * 10**9
    os.utime(collection.photos / "says nothing.png", ns=(late, late))
    if (collection.photos / "says nothing.png").stat().st_mtime_ns != late:
        pytest.skip("this file system keeps no times after 2262")
    assert collection.build(clusters=2).photos == len(DAYS)
    assert not collection.build().changed
    for after, before in ((date(1, 1, 1), None), (None, date.max), (date(2262, 4, 12), None), (date.max, date.max)):
        assert "says nothing.png" not in found(collection, after, before)
    assert found(collection, date(1, 1, 1), date.max) == DAYS.keys() - {"says nothing.png"}
