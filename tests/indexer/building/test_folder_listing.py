from __future__ import annotations

from pathlib import Path

from indexer.building.folder_listing import list_photos
from indexer.store.removals import Removals
from indexer.store.roots import Root
from indexer.store.stamps import FileStamp, from_columns, to_columns


def roots(folder: Path) -> list[Root]:
    """Two roots with photos of one byte."""
    for name in ("a/z.png", "a/in here/m.JPG", "b/c.webp", "b/notes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return [Root("a", folder / "a"), Root("b", folder / "b")]


def test_files_are_listed_in_the_order_of_their_shown_paths_with_size_and_time(tmp_path: Path) -> None:
    listing = list_photos(roots(tmp_path), tmp_path / "index")
    assert [file.key for file in listing.files] == [(0, "in here/m.JPG"), (0, "z.png"), (1, "c.webp")]
    assert {file.stamp for file in listing.files} == {
        FileStamp.of(path.stat()) for path in tmp_path.rglob("*.*") if path.suffix != ".txt"
    }
    assert listing.unlisted == ()


def test_what_was_removed_is_not_listed(tmp_path: Path) -> None:
    removals = Removals().removing(0, "in here").removing(1, "c.webp")
    assert [file.path for file in list_photos(roots(tmp_path), tmp_path / "index", removals).files] == ["z.png"]


def test_a_folder_that_cannot_be_listed_is_reported_and_the_others_are_listed(tmp_path: Path) -> None:
    listing = list_photos([*roots(tmp_path), Root("gone", tmp_path / "gone")], tmp_path / "index")
    assert [(bad.path, bad.reason) for bad in listing.unlisted] == [
        ("gone/", "the folder cannot be read: No such file or directory")
    ]
    assert len(listing.files) == 3


def test_a_stamp_and_its_absence_come_back_from_the_columns_of_a_table() -> None:
    for stamp in (FileStamp(0, 0), FileStamp(5, -1, 7), None):
        assert from_columns(*to_columns(stamp)) == stamp
