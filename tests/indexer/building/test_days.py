"""The days on which photos were taken: read when a photo is, and kept from build to build."""

from __future__ import annotations

import os
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import model
from indexer import PhotoFilter, build, compact, open_index, read_summary, remove, verify
from indexer.building.folder_listing import FoundFile
from indexer.building.journal import FileRecord, Journal
from indexer.building.staging import Stager
from indexer.store.location import IndexFolder
from indexer.store.photos.catalog import read_catalog
from indexer.store.photos.days import DayTaken
from indexer.store.stamps import FileStamp
from tests.indexer.damages import make_format_2, make_format_3
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


def days(index: Path) -> dict[str, DayTaken | None]:
    """What the catalog says of each indexed file."""
    live = IndexFolder(index).current()
    assert live is not None
    files = read_catalog(index / live / "photos.sqlite")
    return {file.path: file.taken for file in files if file.status == "indexed"}


EXPECTED = {
    **{name: DayTaken(day) for name, (_, day) in FILES.items()},
    **{name: DayTaken(None) for name in ("broken block.jpg", "says nothing.png")},
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
    taken = {name for name, said in EXPECTED.items() if said.day}
    for after, before, expected in (
        (TAKEN, TAKEN, taken),
        (None, date(2019, 8, 6), set[str]()),
        (date(2019, 8, 8), None, EXPECTED.keys() - taken),
        (CHANGED, CHANGED, EXPECTED.keys() - taken),
        (TAKEN, None, set(EXPECTED)),
    ):
        assert found(index_path, matcher, after, before) == expected
    assert read_summary(index_path).undated == 0


def test_an_embedder_that_takes_whole_pictures_changes_no_day(
    photos: Path, index_path: Path, matcher: model.Matcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.embedding.embedder.RetEmbedder.uses_pictures", True)
    build([photos], index_path, matcher, clusters=2)
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
    assert days(index_path) == {**moved, "a copy.jpg": DayTaken(TAKEN)}
    (photos / "turned.jpg").write_bytes(dated(photo(SHAPES[1], 48), "2020:02:29 10:11:12"))
    build([photos], index_path, matcher, checksum=True)
    assert days(index_path)["turned.jpg"] == DayTaken(date(2020, 2, 29))


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
    assert days(index_path)["camera.jpg"] == DayTaken(TAKEN)


@pytest.mark.parametrize("make_older", [make_format_2, make_format_3])
def test_an_older_index_goes_by_the_days_of_the_files_until_a_build_has_read_them(
    photos: Path, index_path: Path, matcher: model.Matcher, make_older: object
) -> None:
    assert callable(make_older)
    build([photos], index_path, matcher, clusters=2)
    make_older(index_path)
    assert verify(index_path) == []
    assert found(index_path, matcher, after=CHANGED, before=CHANGED) == EXPECTED.keys()
    assert read_summary(index_path).undated == len(EXPECTED)
    # What is written without reading photos still does not know.
    remove(["says nothing.png"], index_path)
    assert read_summary(index_path).undated == len(EXPECTED) - 1
    assert found(index_path, matcher, before=TAKEN) == set()
    report = build([photos], index_path, matcher)
    assert (report.changed, report.encoded) == (True, 0)
    assert days(index_path) == {name: said for name, said in EXPECTED.items() if name != "says nothing.png"}
    assert read_summary(index_path).undated == 0
    assert not build([photos], index_path, matcher).changed


def test_a_build_that_was_killed_goes_on_with_the_days_that_it_has_read(
    photos: Path, index_path: Path, matcher: model.Matcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    begun, commit = Stager._read, Stager._commit

    def killed(self: Stager, *args: object) -> object:
        raise KeyboardInterrupt

    def noted(self: Stager, file: FoundFile, *args: Any, **how: Any) -> object:
        read.append(file.path)
        return begun(self, file, *args, **how)

    with monkeypatch.context() as patch:
        commits = iter((commit, commit))
        patch.setattr(Stager, "_commit", lambda self, *args: next(commits, killed)(self, *args))
        with pytest.raises(KeyboardInterrupt):
            build([photos], index_path, matcher, clusters=2, batch=3)
    monkeypatch.setattr(Stager, "_read", noted)
    build([photos], index_path, matcher, clusters=2, batch=3)
    assert len(read) == len(EXPECTED) - 6
    assert days(index_path) == EXPECTED


def test_the_journal_keeps_what_was_read_of_days(tmp_path: Path) -> None:
    records = [
        FileRecord(0, name, name, FileStamp(1, 1, 1), taken=taken)
        for name, taken in (("a", DayTaken(TAKEN)), ("b", DayTaken(None)), ("c", None))
    ]
    journal = Journal(tmp_path / "journal")
    journal.append(records, [], None)
    journal.close()
    again = Journal(tmp_path / "journal")
    assert list(again.records().values()) == records
    again.close()
