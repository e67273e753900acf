"""The days on which photos were taken: read when a photo is, and kept from build to build."""

from __future__ import annotations

import os
import shutil
from datetime import date
from pathlib import Path

import pytest

import model
from indexer import PhotoFilter, build, compact, open_index, remove
from indexer.building.staging import Stager
from indexer.store.catalog import GalleryFile, read_catalog
from indexer.store.location import IndexFolder
from model.decoding import Decoders
from tests.indexer.clip_models import saved_clip
from tests.pictures import SHAPES, dated, encoded, photo

TAKEN = date(2019, 8, 7)
CHANGED = date(2023, 5, 6)
# What each file says of its day, and the day that counts.
FILES = {
    "camera.jpg": ("2019:08:07 10:11:12", TAKEN),
    "turned.jpg": ("2019:08:07 10:11:12", TAKEN),
    "scan.tif": ("2019:08:07 10:11:12", TAKEN),
    "never set.jpg": ("0000:00:00 00:00:00", None),
    "words.jpg": ("a sunny day", None),
    "far future.png": ("9999:12:31 00:00:00", None),
}


def picture(number: int) -> bytes:
    return encoded(photo(SHAPES[number], 48, seed=number))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    kinds = {".jpg": "JPEG", ".tif": "TIFF", ".png": "PNG"}
    for number, (name, (said, _)) in enumerate(FILES.items()):
        file, shown = folder / name, photo(SHAPES[number], 48, seed=number)
        file.write_bytes(dated(shown, said, kinds[file.suffix], orientation=6 if name == "turned.jpg" else 1))
    broken = (folder / "camera.jpg").read_bytes().replace(b"II*\0", b"IIII").replace(b"MM\0*", b"MMMM")
    (folder / "broken block.jpg").write_bytes(broken)
    (folder / "says nothing.png").write_bytes(picture(7))
    for file in folder.iterdir():
        os.utime(file, (1683374400, 1683374400))  # noon of the day CHANGED
    return folder


def days(index: Path) -> dict[str, date | None]:
    """What the catalog says of each indexed file."""
    live = IndexFolder(index).current()
    assert live is not None
    files = read_catalog(index / live / "photos.sqlite")
    return {file.path: file.taken for file in files if file.status == "indexed"}


EXPECTED = {
    **{name: day for name, (_, day) in FILES.items()},
    **dict.fromkeys(("broken block.jpg", "says nothing.png")),
}


def found(index: Path, matcher: model.Matcher, after: date | None = None, before: date | None = None) -> set[str]:
    with open_index(index, matcher) as opened:
        passing = opened.passing(PhotoFilter(after=after, before=before))
        return {path for photo in opened.ids[passing].tolist() for path in opened.photo(photo).paths}


def test_photos_are_found_by_the_day_taken_and_where_there_is_none_by_that_of_the_file(
    photos: Path, index_path: Path, matcher: model.Matcher
) -> None:
    report = build([photos], index_path, matcher, clusters=2)
    assert (report.photos, report.bad) == (len(EXPECTED), ())
    assert days(index_path) == EXPECTED
    taken = {name for name, said in EXPECTED.items() if said}
    for after, before, expected in (
        (TAKEN, TAKEN, taken),
        (None, date(2019, 8, 6), set[str]()),
        (date(2019, 8, 8), None, EXPECTED.keys() - taken),
        (CHANGED, CHANGED, EXPECTED.keys() - taken),
        (TAKEN, None, set(EXPECTED)),
    ):
        assert found(index_path, matcher, after, before) == expected


def test_an_embedder_that_takes_whole_pictures_changes_no_day(
    photos: Path, index_path: Path, matcher: model.Matcher, tmp_path: Path
) -> None:
    build([photos], index_path, matcher, clusters=2, embedder=f"clip:{saved_clip(tmp_path / 'clip')}")
    assert days(index_path) == EXPECTED


def test_the_next_build_keeps_the_days_and_a_copy_has_that_of_its_content(
    photos: Path, index_path: Path, matcher: model.Matcher
) -> None:
    build([photos], index_path, matcher, clusters=2)
    assert not build([photos], index_path, matcher).changed
    shutil.copy(photos / "camera.jpg", photos / "a copy.jpg")
    (photos / "scan.tif").rename(photos / "another name.tif")
    os.utime(photos / "turned.jpg")
    report = build([photos], index_path, matcher)
    assert report.encoded == 0
    moved = {"another name.tif" if name == "scan.tif" else name: said for name, said in EXPECTED.items()}
    assert days(index_path) == {**moved, "a copy.jpg": TAKEN}
    (photos / "turned.jpg").write_bytes(dated(photo(SHAPES[1], 48), "2020:02:29 10:11:12"))
    build([photos], index_path, matcher, checksum=True)
    assert days(index_path)["turned.jpg"] == date(2020, 2, 29)


def test_removing_compacting_and_coming_back_change_no_day(
    photos: Path, index_path: Path, matcher: model.Matcher
) -> None:
    build([photos], index_path, matcher, clusters=2)
    remove(["says nothing.png"], index_path)
    compact(index_path)
    assert days(index_path) == {name: said for name, said in EXPECTED.items() if name != "says nothing.png"}
    (photos / "camera.jpg").rename(photos.parent / "away.jpg")
    build([photos], index_path, matcher)
    (photos.parent / "away.jpg").rename(photos / "camera.jpg")
    build([photos], index_path, matcher)
    assert days(index_path)["camera.jpg"] == TAKEN


def test_a_build_that_was_killed_goes_on_with_the_days_that_it_has_read(
    photos: Path, index_path: Path, matcher: model.Matcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    begun, commit = Stager._read, Stager._commit

    def killed(self: Stager, *args: object) -> object:
        raise KeyboardInterrupt

    def noted(self: Stager, decoders: Decoders, file: GalleryFile) -> object:
        read.append(file.path)
        return begun(self, decoders, file)

    with monkeypatch.context() as patch:
        commits = iter((commit, commit))
        patch.setattr(Stager, "_commit", lambda self, *args: next(commits, killed)(self, *args))
        with pytest.raises(KeyboardInterrupt):
            build([photos], index_path, matcher, clusters=2, batch=3)
    monkeypatch.setattr(Stager, "_read", noted)
    build([photos], index_path, matcher, clusters=2, batch=3)
    assert len(read) == len(EXPECTED) - 6
    assert days(index_path) == EXPECTED


def test_a_file_of_a_time_that_no_photo_can_have_is_of_no_day(
    photos: Path, index_path: Path, matcher: model.Matcher
) -> None:
    late = 2**63 + 86400 * 10**9
    os.utime(photos / "says nothing.png", ns=(late, late))
    if (photos / "says nothing.png").stat().st_mtime_ns != late:
        pytest.skip("this file system keeps no times after 2262")
    assert build([photos], index_path, matcher, clusters=2).photos == len(EXPECTED)
    assert not build([photos], index_path, matcher).changed
    for after, before in ((date(1, 1, 1), None), (None, date.max), (date(2262, 4, 12), None), (date.max, date.max)):
        assert "says nothing.png" not in found(index_path, matcher, after, before)
    assert found(index_path, matcher, date(1, 1, 1), date.max) == EXPECTED.keys() - {"says nothing.png"}
