"""Which files of a folder are photos of the gallery, and what patterns keep out."""

import os
from pathlib import Path

import pytest

from sketch_search.indexer import BadInvocation, BuildRequest, build
from sketch_search.indexer.building.folder_listing import MAX_LENGTH, MAX_PATTERNS, Exclusions, FolderListing
from sketch_search.indexer.store.location import Root, shown_path
from tests.indexer.galleries import Collection, catalog, save_photo
from tests.pictures import SHAPES, dng, encoded, photo


def test_the_order_is_that_of_whole_paths_whatever_their_folders_are_called(tmp_path: Path) -> None:
    names = ["a/x.png", "a b/x.png", "a.png", "a-2/x.png", "a/b/x.png", "b.png", "a/\udce9.png", "a/z.png", "a/é/x.png"]
    for root in ("g", "g-2"):
        for name in names:
            (tmp_path / root / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / root / name).touch()
    gallery = [Root(name="g", path=str(tmp_path / "g")), Root(name="g-2", path=str(tmp_path / "g-2"))]
    found = [shown_path(["g", "g-2"], file.root, file.path) for file in FolderListing(gallery, tmp_path / "index")]
    assert found == sorted(found)
    assert len(found) == 2 * len(names)


def test_other_files_are_counted_and_never_opened_and_files_without_a_suffix_are_inspected(tmp_path: Path) -> None:
    names = ("z.png", "in here/m.JPG", "c.webp", "notes.txt", "film.MOV", "more.mov", ".hidden", "README")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "scan").write_bytes(encoded(photo(SHAPES[0], size=48)))
    (tmp_path / "linked").symlink_to(tmp_path / "in here")
    os.mkfifo(tmp_path / "pipe.jpg")
    listing = FolderListing([Root(name="a", path=str(tmp_path))], tmp_path / "index")
    assert [file.path for file in listing] == ["c.webp", "in here/m.JPG", "scan", "z.png"]
    assert listing.skipped == (
        "1 symbolic link, not followed; name the folders instead",
        "4 files of other types: 2 .mov, 1 without an ending, 1 .txt",
        "1 that is not a regular file: a pipe, socket or device",
    )


def test_the_thumbnails_of_an_index_are_no_photos(built: Collection, tmp_path: Path) -> None:
    other = built.photos.parent / "other index"
    save_photo(built.index / "thumbnails" / "x-256.jpg", 3)
    with pytest.raises(BadInvocation, match="holds an index and no photos"):
        build(other, BuildRequest([built.index]), built.matcher)
    outer = build(other, BuildRequest([built.photos.parent]), built.matcher)
    assert (outer.photos, outer.skipped) == (
        12,
        ("1 folder or file of thumbnails, copies, deleted or hidden photos: 1 of an index",),
    )


def test_a_raw_file_and_the_film_of_a_live_photo_are_left_out_beside_their_photo(tmp_path: Path) -> None:
    for name in ("1.CR2", "1.jpg", "2.HEIC", "2.MOV", "2.dng", "3.dng", "4.mov", "5.jpg", "5.png", "a/1.nef"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    listing = FolderListing([Root(name="a", path=str(tmp_path))], tmp_path / "index")
    assert [file.path for file in listing] == ["1.jpg", "2.HEIC", "3.dng", "5.jpg", "5.png", "a/1.nef"]
    assert listing.skipped == (
        "3 files beside a photo of the same name: 1 .cr2, 1 .dng, 1 .mov",
        "1 file of other types: 1 .mov",
    )


# What programs keep beside photos; the ordinary names beside which it lies, and that are photos, too.
LEFT_OUT = """
    @eaDir/1.jpg/THUMB.jpg; #recycle/1.jpg; $RECYCLE.BIN/S-1/$R1.jpg; @Recycle/1.jpg; app/.nomedia; app/1.jpg
    ~snapshot/hourly.0/1.jpg; __MACOSX/1.jpg; FOUND.001/1.jpg; My.photoslibrary/resources/derivatives/1.jpg
    Lightroom/Previews.lrdata/0/0A1B/0A1B2C3D-1111-2222-3333-444455556666-0123_1024; trip/[Originals]/1.jpg
    Lightroom/Smart Previews.lrdata/0/0A1B/0A1B2C3D-1111-2222-3333-444455556666.dng; M4ROOT/THMBNL/C0001T01.JPG
    nextcloud/appdata_oc1a2b3c4d5e/preview/a/b/12/256-256.jpg; nextcloud/ann/files_trashbin/files/1.jpg.d1718000000
    nextcloud/ann/files_versions/1.jpg.v1718000000; immich/thumbs/1/2/3-preview.jpeg; immich/profile/1/face.jpg
    Takeout/Google Fotos/Papierkorb/1.jpg; iCloud/Zuletzt gelo\u0308scht/1.jpg; iCloud/Recently Deleted/1.jpg
    storage/.ppstorage; storage/cache/thumbnails/1/2/3/123abc_720x720_fit.jpg; storage/sidecar/b.heic.jpg
    lychee/medium2x/ab/cd/1.jpg; lychee/small/ab/cd/1.jpg; lychee/thumb/ab/cd/1.jpg
    piwigo/_data/i/upload/2015/06/15/1-th.jpg; media/protected_media/thumbnails_big/1.webp
    libre/square_thumbnails_small/1.webp; libre/thumbnails_big/1.webp; libre/faces/1.jpg; emby/metadata/People/1.jpg
    photoview/media-cache/3/7/thumbnail_1_jpg_AbCdEf12.jpg; photoview/3/7/highres_1_cr2_AbCdEf12.jpg
    pigallery/tc/IMG_1.JPG_240q80cs.webp; home/4b/15/7a9dc0e-image-preview-1920.jpg; films/A.trickplay/320/0.jpg
    jellyfin/metadata/library/ab/1/poster.jpg; jellyfin/cache/images/1.jpg; copy/SYNOPHOTO_THUMB_XL.jpg
    blog/beach-300x200.jpg; blog/Beach-1024x683.jpg; blog/dune-150x150.jpg; blog/beach-scaled.jpg
    snap/2021-05-01_0A1B2C3D-overlay.png; snap/2021-05-01_0A1B2C3D-caption.png; snap/2021-05-01_overlay~0A1B.webp
"""
BESIDE = """
    My.photoslibrary/originals/0/1.jpg; originals/1.jpg; resources/1.jpg; Lightroom/Mobile Downloads.lrdata/1.dng
    immich/encoded-video/1.jpg; bin/1.jpg; thumbs/1.jpg; small/1.jpg; thumb/1.jpg; lychee/original/ab/cd/1.jpg
    _data/1.jpg; piwigo/upload/1.jpg; faces/1.jpg; highres_1_cr2_AbCdEf12.jpg; cache/1.jpg; library/1.jpg
    jellyfin/root/1.jpg; jellyfin/data/1.jpg; blog/beach.jpg; blog/dune-scaled.jpg; wallpaper-1920x1080.jpg
    dunes-scaled.jpg; snap/2021-05-01_0A1B2C3D-main.jpg; overlay.png; 2021-05-01_caption.txt.png; storage.jpg
"""


def test_what_other_programs_keep_is_left_out_and_counted(tmp_path: Path) -> None:
    left_out, kept = (
        [path.strip() for path in paths.strip().replace("\n", ";").split(";")] for paths in (LEFT_OUT, BESIDE)
    )
    for name in (*left_out, *kept, ".nomedia"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    listing = FolderListing([Root(name="a", path=str(tmp_path))], tmp_path / "index")
    assert sorted(file.path for file in listing) == sorted(kept)
    (said,) = listing.skipped
    assert said.startswith("46 folders or files of thumbnails, copies, deleted or hidden photos: 4 sizes of WordPress")


def test_a_photo_that_icloud_took_from_the_disk_stays_in_the_index(collection: Collection) -> None:
    collection.build()
    names = sorted(catalog(collection.index))
    for name in names:
        path = collection.photos / name
        path.with_name(f".{path.name}.icloud").write_bytes(path.read_bytes()[:0])
        path.unlink()
    (collection.photos / ".new.HEIC.icloud").touch()
    (collection.photos / ".notes.txt.icloud").touch()
    report = collection.build()
    assert (report.photos, report.bad, report.settled.gone) == (12, (), 0)
    assert "13 photos not on this disk but in iCloud: download to index" in report.skipped
    for path in collection.photos.rglob(".*.icloud"):
        path.unlink()
    # The folder that is empty now may not be mounted.
    save_photo(collection.photos / "other.png", 40)
    assert collection.update(allow_loss=True).settled.gone == 8


PATHS = ("a.png", "b.JPG", "raw/a.png", "trip/raw/a.png", "trip/keep.png", "trip/screenshots 1/a.png")


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        (["*.png"], {"b.JPG"}),
        (["raw/"], {"a.png", "b.JPG", "trip/keep.png", "trip/screenshots 1/a.png"}),
        (["/raw"], set(PATHS) - {"raw/a.png"}),
        (["*.png", "!keep.png"], {"b.JPG", "trip/keep.png"}),
        (["trip/", "!keep.png"], {"a.png", "b.JPG", "raw/a.png"}),
        (["**/screenshots*/**", "*.[Jj][Pp][Gg]"], {"a.png", "raw/a.png", "trip/raw/a.png", "trip/keep.png"}),
        (["trip/*/a.png"], {"a.png", "b.JPG", "raw/a.png", "trip/keep.png"}),
        (["*.jpg", "raw"], {"a.png", "b.JPG", "trip/keep.png", "trip/screenshots 1/a.png"}),
    ],
)
def test_patterns_hide_the_same(patterns: list[str], left: set[str], collection: Collection, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    for number, path in enumerate(PATHS):
        save_photo(folder / path, number)
    build(collection.index, BuildRequest([folder], clusters=1), collection.matcher)
    report = collection.update(excluded=patterns)
    assert (report.encoded, report.settled.gone, report.kept) == (0, 0, [])
    assert {path for path, entry in catalog(collection.index).items() if entry[1] == "indexed"} == left
    build(tmp_path / "new", BuildRequest([folder], excluded=patterns, clusters=1), collection.matcher)
    assert catalog(tmp_path / "new").keys() == left


def test_a_raw_file_counts_if_the_photo_beside_it_is_excluded(collection: Collection) -> None:
    pytest.importorskip("rawpy")
    (collection.photos / "a.jpg").write_bytes(encoded(photo(SHAPES[0], 64), "JPEG"))
    (collection.photos / "a.dng").write_bytes(dng(encoded(photo(SHAPES[1], 96), "JPEG")))
    assert collection.build().photos == 13
    collection.build(excluded=["*.jpg"])
    shown = {path for path, entry in catalog(collection.index).items() if entry[1] == "indexed"}
    assert "a.dng" in shown
    assert "a.jpg" not in shown


def test_a_gallery_of_which_all_is_excluded_is_refused(collection: Collection) -> None:
    with pytest.raises(BadInvocation, match=r"no image files in .*photos besides those that --exclude leaves out"):
        collection.build(excluded=["*"])


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        (["[z-a]"], "cannot be read"),
        (["!"], "cannot be read"),
        (["a\\"], "cannot be read"),
        ([""], "matches no file"),
        (["# all"], "matches no file"),
        (["a["], "matches no file"),
        (["*a*a*a*b"], "too many wildcards"),
        (["**/a/**/b/**/c/**/d/**/e"], "too many wildcards"),
        (["****"], "too many wildcards"),
        (["x" * (MAX_LENGTH + 1)], "too long"),
        (["caf\udce9"], "not valid UTF-8"),
        ([str(number) for number in range(MAX_PATTERNS + 1)], "too many; use at most"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_refused_in_words(patterns: list[str], said: str) -> None:
    with pytest.raises(BadInvocation, match=said):
        Exclusions(patterns)
