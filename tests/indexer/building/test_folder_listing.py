import os
from pathlib import Path

import pytest

from indexer.building.folder_listing import BadFile, FolderListing, Skipped
from indexer.store.folders import LocalFolder
from indexer.store.roots import Root, shown_path
from tests.pictures import SHAPES, encoded, photo


def roots(folder: Path) -> list[Root]:
    for name in ("a/z.png", "a/in here/m.JPG", "b/c.webp", "b/notes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return [Root("a", LocalFolder(folder / "a")), Root("b", LocalFolder(folder / "b"))]


def test_the_order_is_that_of_whole_paths_whatever_their_folders_are_called(tmp_path: Path) -> None:
    names = ["a/x.png", "a b/x.png", "a.png", "a-2/x.png", "a/b/x.png", "b.png", "a/\udce9.png", "a/z.png", "a/é/x.png"]
    for root in ("g", "g-2"):
        for name in names:
            (tmp_path / root / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / root / name).touch()
    gallery = [Root("g", LocalFolder(tmp_path / "g")), Root("g-2", LocalFolder(tmp_path / "g-2"))]
    found = [shown_path(["g", "g-2"], *file.key) for file in FolderListing(gallery, tmp_path / "index")]
    assert found == sorted(found)
    assert len(found) == 2 * len(names)


def test_links_and_files_of_other_types_are_counted_and_files_without_ending_are_looked_into(tmp_path: Path) -> None:
    gallery = roots(tmp_path)
    (tmp_path / "a" / "scan").write_bytes(encoded(photo(SHAPES[0], size=48)))
    (tmp_path / "a" / "README").write_bytes(b"text")
    (tmp_path / "a" / "linked").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "film.MOV").write_bytes(b"x")
    (tmp_path / "b" / "more.mov").write_bytes(b"x")
    (tmp_path / "b" / ".hidden").write_bytes(b"x")
    listing = FolderListing(gallery, tmp_path / "index")
    assert [file.path for file in listing] == ["in here/m.JPG", "scan", "z.png", "c.webp"]
    assert (listing.skipped.links, dict(listing.skipped.endings)) == (1, {".mov": 2, ".txt": 1, "": 1})
    assert listing.skipped.describe() == [
        "1 symbolic link, not followed; name the folders instead",
        "4 files of other types: 2 .mov, 1 without an ending, 1 .txt",
    ]
    assert Skipped().describe() == []
    many = Skipped(2, tuple((f".{number}", 1) for number in range(7)))
    assert [words[-9:] for words in many.describe()] == ["s instead", " 2 others"]


def test_an_empty_root_counts_as_one_that_is_not_there_only_where_files_are_known_in_it(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".marker").touch()
    gallery = [*roots(tmp_path), Root("empty", LocalFolder(tmp_path / "empty"))]
    listing = FolderListing(gallery, tmp_path / "index", expected={(0, ""), (1, "")}.__contains__)
    assert len(list(listing)) == 3
    assert listing.unlisted == ()
    listing = FolderListing(gallery, tmp_path / "index", expected={(0, ""), (1, ""), (2, "")}.__contains__)
    assert len(list(listing)) == 3
    assert listing.unlisted == (
        BadFile(str(tmp_path / "empty"), "the folder is empty, as when its disk is not mounted"),
    )
    assert listing.may_hide((2, "x.png"))


def test_a_raw_file_and_the_film_of_a_live_photo_are_left_out_beside_their_photo(tmp_path: Path) -> None:
    for name in ("1.CR2", "1.jpg", "2.HEIC", "2.MOV", "2.dng", "3.dng", "4.mov", "5.jpg", "5.png", "a/1.nef"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    listing = FolderListing([Root("a", LocalFolder(tmp_path))], tmp_path / "index")
    assert [file.path for file in listing] == ["1.jpg", "2.HEIC", "3.dng", "5.jpg", "5.png", "a/1.nef"]
    assert listing.skipped.describe() == [
        "3 files beside a photo of the same name: 1 .cr2, 1 .dng, 1 .mov",
        "1 file of other types: 1 .mov",
    ]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_with_the_name_of_a_photo_is_counted_and_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "photo.jpg")
    listing = FolderListing([Root("a", LocalFolder(tmp_path))], tmp_path / "index")
    assert list(listing) == []
    assert listing.skipped.describe() == ["1 that is no file: a pipe, socket or device"]
