import random
import zipfile
from pathlib import Path

import pytest

from sketch_search import model
from sketch_search.indexer import BadInvocation, BuildRequest, build, remove
from sketch_search.indexer.store.files import FileChanging
from sketch_search.indexer.store.folders import Album
from tests.indexer.galleries import Collection, catalog


def zipped(folder: Path, album: Path) -> Path:
    with zipfile.ZipFile(album, "w") as file:
        for photo in sorted(folder.rglob("*.png")):
            file.write(photo, photo.relative_to(folder).as_posix())
    return album


@pytest.fixture
def album(gallery: Path, tmp_path: Path) -> Path:
    return zipped(gallery, tmp_path / "takeout.zip")


@pytest.fixture
def collection(album: Path, index_path: Path, matcher: model.Matcher) -> Collection:
    return Collection(album, index_path, matcher)


def test_an_album_is_indexed_like_its_folder(album: Path, built: Collection, gallery: Path, tmp_path: Path) -> None:
    build(tmp_path / "of folder", BuildRequest([gallery]), built.matcher)
    assert catalog(built.index) == catalog(tmp_path / "of folder")
    with built.open() as index:
        photo = index.photo_at(f"{album}/Ännchen 001.png")
        content = (gallery / "Ännchen 001.png").read_bytes()
        assert index.open_photo(photo.id).whole() == content
        assert index.part_of_photo(photo.id, len(content), 3, 5) == content[3:8]
        assert index.address_of("Ännchen 001.png") == f"{album}/Ännchen 001.png"


def test_only_what_has_changed_in_an_album_is_read_again(album: Path, built: Collection, gallery: Path) -> None:
    assert not built.update().changed
    (gallery / "Ännchen 001.png").write_bytes((gallery / "Ännchen 002.png").read_bytes())
    (gallery / "Ännchen 004.png").unlink()
    zipped(gallery, album)
    report = built.update()
    assert (report.photos, report.files, report.settled.gone, report.encoded) == (10, 11, 1, 0)


def test_names_that_lead_out_of_an_album_are_reported(album: Path, collection: Collection, tmp_path: Path) -> None:
    secret = tmp_path / "x.png"
    secret.write_bytes(b"secret")
    with zipfile.ZipFile(album, "a") as file:
        for name in ("../../x.png", str(secret), "a//b.png"):
            file.writestr(name, b"inside")
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        file.writestr(link, str(secret))
        file.writestr("__MACOSX/._Ännchen 001.png", b"hidden")
        # Deeper than Python calls functions, and than a list of all its folders would fit into memory.
        file.writestr("/".join("a" * 30_000) + "/deep.png", b"deep")
        file.writestr("b" * 60_000 + ".png", b"long")
    report = collection.build()
    assert {bad.path for bad in report.bad} == {"../../x.png", str(secret), "a//b.png"}
    assert all("leads outside its folder" in bad.reason for bad in report.bad)
    assert "1 symbolic link, not followed; name the folders instead" in report.skipped
    assert {folder.reason.partition(":")[0] for folder in report.unlisted} == {
        "the folder is not read",
        "files in it are left out",
    }
    assert max(len(folder.path) for folder in report.unlisted) < 300
    for path in ("../x.png", str(secret), "link.png/../../x.png"):
        with pytest.raises(OSError, match="leads outside its folder"):
            Album(album).read(path)
    assert secret.read_bytes() == b"secret"


def test_a_part_of_an_album_is_refused_and_leaves_the_index_as_it_was(album: Path, collection: Collection) -> None:
    whole = album.read_bytes()
    album.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInvocation, match="not a complete ZIP file; copy or download it again"):
        collection.build()
    album.write_bytes(whole)
    before = collection.build().generation
    for state in (whole[: len(whole) // 2], b"", None):
        album.unlink() if state is None else album.write_bytes(state)
        report = collection.update()
        assert (report.generation, report.photos, report.settled.gone) == (before, 12, 0)
        assert [folder.path for folder in report.unlisted] == [str(album)]


def test_a_damaged_photo_of_an_album_is_reported(album: Path, collection: Collection) -> None:
    with zipfile.ZipFile(album) as file:
        place = file.getinfo("Ännchen 001.png").header_offset + 80
    data = bytearray(album.read_bytes())
    data[place] ^= 0xFF
    album.write_bytes(data)
    report = collection.build()
    assert (report.photos, [bad.path for bad in report.bad]) == (11, ["Ännchen 001.png"])
    assert "get the album again" in report.bad[0].reason


def test_an_album_may_lie_in_a_folder_of_the_gallery(album: Path, collection: Collection, gallery: Path) -> None:
    inner = album.rename(gallery / "takeout.zip")
    report = collection.update(folders=[gallery, inner])
    assert (report.photos, report.files, report.skipped) == (12, 24, ("1 file of other types: 1 .zip",))
    remove([f"{inner}/Ännchen 001.png"], collection.index)
    with collection.open() as index:
        assert index.photo_at(str(gallery / "Ännchen 001.png")).paths == ("photos/Ännchen 001.png",)
    assert collection.update(added=[f"{inner}/Ännchen 001.png"]).files == 24


def test_a_photo_is_read_in_parts_by_two_at_once(tmp_path: Path) -> None:
    whole = random.Random(0).randbytes(100_000)
    with zipfile.ZipFile(tmp_path / "takeout.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("large.png", whole)
    album = Album(tmp_path / "takeout.zip")
    for start in range(0, len(whole), 1000):
        for place in (start, (start + 50_000) % len(whole)):
            assert album.read_part("large.png", 1000, start=place, size=len(whole)) == whole[place : place + 1000]
    assert album.read_part("large.png", 1000, start=99_500) == whole[99_500:]
    with pytest.raises(FileChanging):
        album.read_part("large.png", 5, size=1)
