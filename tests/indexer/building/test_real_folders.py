"""Folders as people have them: RAW files beside broken photos, dates beside and in names, damaged files, odd names."""

import io
import os
import shutil
import struct
import sys
import time
import zipfile
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image

from sketch_search import model
from sketch_search.indexer import (
    BadInvocation,
    BuildRequest,
    PhotoFilter,
    build,
    count_files,
    read_summary,
    remove,
    verify,
)
from sketch_search.model.decoding import Decoders
from sketch_search.model.engine import Floats, Modality, Tokens
from sketch_search.model.errors import DecodingUnavailable, EndedDecoding
from sketch_search.model.images import Day, OpenedImage
from sketch_search.model.images.formats import IMAGE_SUFFIXES
from tests.indexer.disks import bound_by_permissions
from tests.indexer.galleries import Collection, catalog, current_catalog, photo_file, save_photo
from tests.networks import saved_clip
from tests.pictures import ODD_FILES, SHAPES, dated, dng, encoded, photo

PHOTO = photo("house", 128)
DAY = date(2015, 6, 15)


def shown(collection: Collection) -> set[str]:
    return {path for path, entry in catalog(collection.index).items() if entry[1] == "indexed"}


@pytest.fixture
def folder(collection: Collection) -> Path:
    return collection.photos


def test_a_raw_file_counts_if_the_photo_beside_it_differs(collection: Collection, folder: Path) -> None:
    pytest.importorskip("rawpy")
    whole = encoded(PHOTO, "JPEG")
    beside = {
        "empty": b"",
        "half": whole[: len(whole) // 3],
        "incomplete": whole[: -len(whole) // 10],
        "other day": dated(photo("star", 128), "2015:06:16 10:00:00"),
        "same day": dated(photo("star", 120), "2015:06:15 11:00:00"),
        "says no day": encoded(photo("circle", 128), "JPEG"),
    }
    for number, (name, data) in enumerate(beside.items()):
        (folder / f"{name}.jpg").write_bytes(data)
        raw = dng(encoded(photo(SHAPES[number], 96), "JPEG"), taken="2015:06:15 10:11:12")
        (folder / f"{name}.dng").write_bytes(raw)
    (folder / "drawn.png").write_bytes(photo_file(30))
    (folder / "drawn.dng").write_bytes(dng(encoded(photo("cross", 96), "JPEG")))
    counting = {f"{name}.dng" for name in ("empty", "half", "incomplete", "other day", "drawn")}
    for _ in range(2):
        report = collection.build(clusters=2)
        assert {path for path in shown(collection) if path.endswith(".dng")} == counting
        assert [bad.path for bad in report.bad] == ["empty.jpg", "half.jpg"]
        assert "2 files beside a photo of the same name: 2 .dng" in report.skipped
    assert not report.changed
    (folder / "half.jpg").write_bytes(encoded(photo("hexagon", 128), "JPEG"))
    collection.build()
    assert {path for path in shown(collection) if path.endswith(".dng")} == counting - {"half.dng"}


def test_an_incomplete_photo_is_indexed_and_said_to_be_so(collection: Collection, folder: Path) -> None:
    (folder / "cut.jpg").write_bytes(encoded(PHOTO, "JPEG")[:-200])
    report = collection.build()
    assert (report.incomplete, report.photos, report.bad) == (("cut.jpg",), 13, ())
    assert collection.build().incomplete == ()


XMP = b'<rdf:Description exif:DateTimeOriginal="2015-06-15T10:11:12"/>'
EVENING = b'{"photoTakenTime": {"timestamp": "1434433500"}}'
TAKEOUT = b'{"title": "x", "photoTakenTime": {"timestamp": "1434364272", "formatted": "15.06.2015"}}'


def test_the_day_may_lie_beside_a_photo_or_in_its_name(tmp_path: Path, collection: Collection) -> None:
    beside = {"a.jpg.xmp": XMP, "b.xmp": XMP, "c.jpg.json": TAKEOUT, "d.jpg.supplemental-metadata.json": TAKEOUT}
    # Names as Google's Takeout cuts and numbers them.
    beside |= {"e.jpg.supplemental-metadata(1).json": TAKEOUT, "f.jpg(2).json": TAKEOUT}
    beside |= {"a long name with 33 letters in it.jpg.suppleme.json": TAKEOUT}
    beside |= {"a name (38), 46 letters long, and its end in.j.json": TAKEOUT}
    names = ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e(1).jpg", "f(2).jpg", "a long name with 33 letters in it.jpg"]
    names += ["a name (38), 46 letters long, and its end in.jpg", "IMG_20150615_101112.jpg", "e.jpg"]
    # Edited copies, in any language, and another case; and the zone of the photo, by its place or its EXIF.
    beside |= {"g.heic.json": TAKEOUT, "h.jpg.json": TAKEOUT, "evening.jpg.json": EVENING, "night.jpg.json": EVENING}
    beside |= {"coast.jpg.json": EVENING.replace(b"}", b', "geoData": {"latitude": 34.0, "longitude": -118.2}}', 1)}
    names += ["c-edited.jpg", "d-bearbeitet.jpg", "e-ha editado(1).jpg", "g-modifi\u00e9.jpg", "H.JPG", "coast.jpg"]
    # The table of iCloud's export, a copy that a syncing program dated, and a folder that the file's time completes.
    beside["Photo Details-1.csv"] = b'imgName,originalCreationDate\nx.jpg,"Sunday May 3,2009 1:00 PM GMT"\n' + (
        b't.JPG,"Monday June 15,2015 10:11 PM GMT",3,"Sunday March 16,2025 9:00 AM GMT"\n'
    )
    names += ["t.JPG", "c (Anna's conflicted copy 2024-03-01).jpg", "2015/says only the year.jpg"]
    names += ["night.jpg", "evening.jpg", "20150615 says.jpg"]
    photos = tmp_path / "dated"
    (photos / "2015").mkdir(parents=True)
    for name, data in beside.items():
        (photos / name).write_bytes(data)
    for number, name in enumerate(names):
        (photos / name).write_bytes(encoded(photo(SHAPES[number % len(SHAPES)], 64, seed=number), "JPEG"))
    os.utime(photos / "2015" / "says only the year.jpg", (1434364272, 1434364272))
    lost: dict[int, Any] = {ExifTags.IFD.GPSInfo: {3: "W", 4: (118.0, 14.0, 0.0)}}
    exif = Image.Exif()
    exif.update(lost)
    (photos / "night.jpg").write_bytes(encoded(photo("cross", 64), "JPEG", exif=exif))
    (photos / names[-1]).write_bytes(dated(PHOTO, "2020:01:01 00:00:00"))
    build(collection.index, BuildRequest([photos], clusters=2), collection.matcher)
    assert of_day(collection) == set(names) - {"e.jpg", "evening.jpg", names[-1]}


def of_day(collection: Collection) -> set[str]:
    with collection.open() as index:
        passing = index.filter_mask(PhotoFilter(after=DAY, before=DAY))
        return {path for number in index.ids[passing].tolist() for path in index.photo(number).paths}


def test_the_parts_of_an_export_say_each_other_s_days(tmp_path: Path, collection: Collection) -> None:
    inside = "Takeout/Google Photos/Photos from 2015"
    files = {"1": {"a.jpg": _jpeg(1), "b.jpg": _jpeg(2)}, "2": {"a.jpg.json": TAKEOUT, "b.jpg.json": TAKEOUT}}
    roots = [tmp_path / "export", *(tmp_path / f"takeout-{part}.zip" for part in files)]
    for part, inner in files.items():
        with zipfile.ZipFile(roots[int(part)], "w") as album:
            for name, data in {**inner, f"c{part}.jpg": _jpeg(int(part) + 2)}.items():
                album.writestr(f"{inside}/{name}", data)
        with zipfile.ZipFile(roots[int(part)]) as album:
            album.extractall(roots[0] / f"takeout-{part}")
    for folders, start in ((roots[1:], "takeout-1.zip/"), (roots[:1], "takeout-1/")):
        index = tmp_path / "indexes" / start.strip("/")
        build(index, BuildRequest(folders, clusters=2), collection.matcher)
        assert of_day(replace(collection, index=index)) == {f"{start}{inside}/{name}" for name in ("a.jpg", "b.jpg")}


def _jpeg(seed: int) -> bytes:
    return encoded(photo(SHAPES[seed], 64, seed=seed), "JPEG")


def test_album_names_are_read_as_meant(tmp_path: Path, collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKETCH_SEARCH_ZIP_ENCODING", "cp932")
    # As they stand in the file: as UTF-8 without its flag, in Japanese, and as cp437.
    meant = {"Fotos/\u00dcber uns.jpg": "utf-8", "\u5199\u771f/1.jpg": "cp932", "plain.jpg": "ascii"}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as album:
        for number, (name, encoding) in enumerate(meant.items()):
            album.writestr("x" * len(name.encode(encoding)), _jpeg(number))
    data = stream.getvalue()
    for name, encoding in meant.items():
        raw = name.encode(encoding)
        data = data.replace(b"x" * len(raw), raw)
    (tmp_path / "album.zip").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "windows.zip", "w") as album:
        for number, name in enumerate(("holiday\\beach\\a.jpg", "holiday\\b.jpg")):
            album.writestr(name, _jpeg(number + 3))
    build(collection.index, BuildRequest([tmp_path / "album.zip", tmp_path / "windows.zip"]), collection.matcher)
    expected = {*meant, "holiday/beach/a.jpg", "holiday/b.jpg"}
    assert shown(collection) == expected
    with collection.open() as index:
        assert index.open_photo(index.photo_at("windows.zip/holiday/b.jpg").id).whole() == _jpeg(4)


def test_an_archive_that_is_not_read_is_named(tmp_path: Path, collection: Collection) -> None:
    (tmp_path / "takeout.tgz").write_bytes(b"\x1f\x8b")
    with pytest.raises(BadInvocation, match="save it as ZIP"):
        build(collection.index, BuildRequest([tmp_path / "takeout.tgz"]), collection.matcher)


def test_a_file_time_of_nothing_is_no_day(collection: Collection, folder: Path) -> None:
    seconds = {"epoch.jpg": 0, "old.jpg": -86400 * 365 * 5 - 3600, "now.jpg": 1_500_000_000}
    for number, (name, moment) in enumerate(seconds.items()):
        (folder / name).write_bytes(_jpeg(number))
        os.utime(folder / name, (moment, moment))
    collection.build()
    with collection.open() as index:
        wanted = PhotoFilter(before=date(2020, 1, 1))
        rows, days = index.newest(wanted)
        assert [date.fromordinal(day) for day in days.tolist()] == [date(2017, 7, 14), date(1965, 1, 1)]
        paths = [index.photo(number).paths for number in index.ids[rows].tolist()]
        assert paths == [("now.jpg",), ("old.jpg",)]
        assert index.filter_mask(wanted).sum() == 2


def test_newest_photos_have_filter_days(collection: Collection, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "evening.jpg").write_bytes(_jpeg(1))
    # 22:30 of the 14th in Greenwich.
    os.utime(folder / "evening.jpg", (1_500_071_400, 1_500_071_400))
    collection.build()
    with collection.open() as index:
        for zone, day in (("UTC0", 14), ("EAST-12", 15), ("WEST12", 14)):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            local = date(2017, 7, day)
            rows, days = index.newest(PhotoFilter(after=local, before=local))
            assert (len(rows), [date.fromordinal(one) for one in days.tolist()]) == (1, [local])
    monkeypatch.undo()
    time.tzset()


def test_a_name_whose_end_is_no_ending_is_looked_into(collection: Collection, folder: Path) -> None:
    for number, name in enumerate(("Scan 2019.06.15 10.22", "Mr. and Mrs. Smith", "pic.2")):
        save_photo(folder / name, 40 + number)
    (folder / "archive.001").write_bytes(b"no picture")
    report = collection.build()
    assert report.photos == 15
    assert report.skipped == ("1 file of other types: 1 .001",)


def test_a_photo_of_a_camera_for_all_directions_is_a_jpeg(collection: Collection, folder: Path) -> None:
    (folder / "IMG_1.insp").write_bytes(encoded(PHOTO, "JPEG") + b"what the camera appends")
    assert collection.build().photos == 13


@pytest.mark.parametrize(
    ("method", "name"), [(9, "deflate64"), (12, "bzip2"), (14, "LZMA"), (93, "zstandard"), (77, "method 77")]
)
def test_the_packer_of_an_unread_zip_is_named(method: int, name: str, tmp_path: Path, collection: Collection) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as album:
        album.writestr("a.png", photo_file(1))
        album.writestr("b.png", photo_file(2))
    data = bytearray(stream.getvalue())
    for signature, at in ((b"PK\x01\x02", 10), (b"PK\x03\x04", 8)):
        struct.pack_into("<H", data, data.index(signature) + at, method)
    (tmp_path / "album.zip").write_bytes(data)
    report = build(collection.index, BuildRequest([tmp_path / "album.zip"]), collection.matcher)
    assert [bad.reason for bad in report.bad] == [
        f"it cannot be read: it is compressed by {name}; compress the album again with deflate"
    ]
    assert report.photos == 1


DECOMPOSED, COMPOSED = "Cafe\u0301", "Caf\u00e9"


@pytest.mark.parametrize(
    ("stored", "typed"),
    [
        (f"{DECOMPOSED}/1.png", f"{COMPOSED}/1.png"),
        (f"{COMPOSED}/1.png", f"{DECOMPOSED}/1.png"),
        (f"{DECOMPOSED}/M\u00e4dchen.png", f"{COMPOSED}/M\u00e4dchen.png"),
        (f"{DECOMPOSED}/M\u00e4dchen.png", f"{DECOMPOSED}/Ma\u0308dchen.png"),
        ("\U0001f468\u200d\U0001f469 family/1.png", "\U0001f468\u200d\U0001f469 family/1.png"),
        ("a\nb\u200b/1.png", "a\\nb\\u200b/1.png"),
    ],
)
def test_a_name_is_taken_as_printed_with_any_accents(stored: str, typed: str, collection: Collection) -> None:
    save_photo(collection.photos / stored, 50)
    collection.build()
    with collection.open() as index:
        assert index.photo_at(typed).paths == (stored,)
        assert index.photo_at(str(collection.photos / typed)).paths == (stored,)
        assert index.filter_mask(PhotoFilter(folders=(typed.partition("/")[0],))).sum() == 1
    remove([typed], collection.index)
    assert catalog(collection.index)[stored][1] == "gone"
    with pytest.raises(BadInvocation, match="no photo at"):
        remove(["Cafe/1.png"], collection.index)


TAKEN = date(2019, 8, 7)
CHANGED = date(2023, 5, 6)
# The text in which each file gives its day, and the day that counts.
SAID = {
    "camera.jpg": ("2019:08:07 10:11:12", TAKEN),
    "turned.jpg": ("2019:08:07 10:11:12", TAKEN),
    "scan.tif": ("2019:08:07 10:11:12", TAKEN),
    "a month.jpg": ("1965:07:00 00:00:00", date(1965, 7, 1)),
    "a year.jpg": ("1965:00:00 00:00:00", date(1965, 1, 1)),
    "never set.jpg": ("0000:00:00 00:00:00", None),
    "words.jpg": ("a sunny day", None),
    "far future.png": ("9999:12:31 00:00:00", None),
}
DAYS = {**{name: day for name, (_, day) in SAID.items()}, "broken block.jpg": None, "says nothing.png": None}


@pytest.fixture
def diary(tmp_path: Path, index_path: Path, matcher: model.Matcher) -> Collection:
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


def days(diary: Collection) -> dict[str, date | None]:
    columns = current_catalog(diary.index)
    taken = {path: day for _, _, path, *_, day, status, _, _, _, _ in columns if status == "indexed"}
    return {path: None if day is None else date.fromordinal(int(day)) for path, day in taken.items()}


def found(diary: Collection, after: date | None = None, before: date | None = None) -> set[str]:
    with diary.open() as opened:
        passing = opened.filter_mask(PhotoFilter(after=after, before=before))
        return {path for photo in opened.ids[passing].tolist() for path in opened.photo(photo).paths}


@pytest.mark.parametrize("embedder", ["ret", "clip"])  # the latter takes whole pictures
def test_photos_are_found_by_the_day_taken_or_changed(embedder: str, diary: Collection, tmp_path: Path) -> None:
    clip = f"clip:{saved_clip(tmp_path / 'clip')}"
    report = diary.build(clusters=2, embedder=clip if embedder == "clip" else embedder)
    assert (report.photos, report.bad) == (len(DAYS), ())
    assert days(diary) == DAYS
    taken = {name for name, said in DAYS.items() if said == TAKEN}
    with diary.open() as opened:
        known = {opened.photo(number).paths[0]: opened.photo(number).taken for number in opened.ids.tolist()}
        rows, _ = opened.newest(PhotoFilter(before=date(1965, 12, 31)))
        assert [opened.photo(number).paths[0] for number in opened.ids[rows].tolist()] == ["a month.jpg", "a year.jpg"]
    assert [str(Day.of(known[name] or 1)) for name in ("a month.jpg", "a year.jpg")] == ["1965-07", "1965"]
    assert count_files(diary.index, 9, PhotoFilter(before=TAKEN)).days[date(1965, 7, 1)] == 1
    for after, before, expected in (
        (TAKEN, TAKEN, taken),
        (None, date(1964, 12, 31), set[str]()),
        (date(1965, 7, 1), date(1965, 7, 31), {"a month.jpg"}),
        (date(1965, 1, 1), date(1965, 12, 31), {"a month.jpg", "a year.jpg"}),
        (date(2019, 8, 8), None, {name for name, said in DAYS.items() if said is None}),
        (CHANGED, CHANGED, {name for name, said in DAYS.items() if said is None}),
        (date(1965, 1, 1), None, set(DAYS)),
    ):
        assert found(diary, after, before) == expected


def test_the_next_build_keeps_the_days_and_a_copy_has_that_of_its_content(diary: Collection) -> None:
    diary.build(clusters=2)
    assert not diary.build().changed
    shutil.copy(diary.photos / "camera.jpg", diary.photos / "a copy.jpg")
    (diary.photos / "scan.tif").rename(diary.photos / "another name.tif")
    os.utime(diary.photos / "turned.jpg")
    assert diary.build().encoded == 0
    moved = {"another name.tif" if name == "scan.tif" else name: said for name, said in DAYS.items()}
    assert days(diary) == {**moved, "a copy.jpg": TAKEN}
    (diary.photos / "turned.jpg").write_bytes(dated(photo(SHAPES[1], 48), "2020:02:29 10:11:12"))
    diary.build(checksum=True)
    assert days(diary)["turned.jpg"] == date(2020, 2, 29)


def test_a_file_of_a_time_that_no_photo_can_have_is_of_no_day(diary: Collection) -> None:
    late = 2**63 + 86400 * 10**9
    os.utime(diary.photos / "says nothing.png", ns=(late, late))
    if (diary.photos / "says nothing.png").stat().st_mtime_ns != late:
        pytest.skip("this file system keeps no times after 2262")
    assert diary.build(clusters=2).photos == len(DAYS)
    assert not diary.build().changed
    for after, before in ((date(1, 1, 1), None), (None, date.max), (date(2262, 4, 12), None), (date.max, date.max)):
        assert "says nothing.png" not in found(diary, after, before)
    assert found(diary, date(1, 1, 1), date.max) == DAYS.keys() - {"says nothing.png"}


def test_an_odd_file_is_indexed_or_reported_and_never_stops_the_build(collection: Collection) -> None:
    for odd in ODD_FILES:
        (collection.photos / odd.name).write_bytes(odd.data)
    collection.build()
    reasons, entries = {bad.path: bad.reason for bad in read_summary(collection.index).bad}, catalog(collection.index)
    for odd in ODD_FILES:
        if Path(odd.name).suffix.lower() in {*IMAGE_SUFFIXES, ""}:
            assert entries[odd.name][1] == ("indexed" if odd.opens else "bad")
            assert (odd.name in reasons) is not odd.opens
            assert odd.opens or (reasons[odd.name].strip() and "\n" not in reasons[odd.name])


def test_names_that_are_not_unicode_are_indexed_and_differ_from_their_escapes(collection: Collection) -> None:
    raw = Path(os.fsdecode(os.fsencode(collection.photos) + b"/caf\xe9.png"))
    literal = collection.photos / "caf\\udce9.png"
    try:
        save_photo(collection.photos / "plain.png", 60).rename(raw)
    except OSError:
        pytest.skip("this file system takes no such names")
    save_photo(literal, 61)
    assert collection.build().bad == ()
    entries = catalog(collection.index)
    with collection.open() as index:
        for shown, file in (("caf\\udce9.png", raw), ("caf\\\\udce9.png", literal)):
            assert index.open_photo(entries[shown][0]).whole() == file.read_bytes()
    with collection.open() as index:
        assert index.photo_at(str(raw)).paths == ("caf\\udce9.png",)
    assert not collection.build().changed
    remove([raw], collection.index)
    assert {path for path, entry in catalog(collection.index).items() if entry[1] == "gone"} == {"caf\\udce9.png"}


def test_a_file_too_large_for_a_photo_is_reported_without_being_read(collection: Collection) -> None:
    with (collection.photos / "film.png").open("wb") as file:
        file.truncate(600 * 2**20)
    report = collection.build()
    assert [(bad.path, bad.reason) for bad in report.bad] == [("film.png", "it cannot be read: larger than 512 MiB")]
    assert not collection.build().changed


def test_an_empty_file_is_reported_until_it_has_content(collection: Collection) -> None:
    empty = collection.photos / "empty.png"
    for computed, photos in ((12, 12), (0, 12)):
        empty.write_bytes(b"")
        report = collection.build()
        assert [(bad.path, bad.reason) for bad in report.bad] == [("empty.png", "the file is empty")]
        assert (report.encoded, report.photos) == (computed, photos)
        save_photo(empty, 60)
        assert (collection.build().photos, collection.build().changed) == (13, False)


def test_an_unreadable_file_is_reported_and_tried_again(collection: Collection) -> None:
    (collection.photos / "Ännchen 001.png").chmod(0)
    with bound_by_permissions():
        assert [bad.reason for bad in collection.build().bad] == ["it cannot be read: Permission denied"]
    (collection.photos / "Ännchen 001.png").chmod(0o600)
    assert collection.build().bad == ()


@pytest.mark.usefixtures("own_decoders")
def test_heic_is_read_once_installed(collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pillow_heif")
    # Photos are decoded in other processes, which look for modules where this one does.
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "pillow_heif.py").write_text("raise ImportError")
    (heic,) = (odd for odd in ODD_FILES if odd.name == "plain.heic")
    (collection.photos / heic.name).write_bytes(heic.data)
    (collection.photos / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    with monkeypatch.context() as without:
        without.syspath_prepend(tmp_path / "modules")
        report = collection.build()
        assert [bad.path for bad in report.bad] == ["broken.jpg", heic.name]
        assert "sketch-search[heic]" in report.bad[1].reason
        assert not collection.build().changed
    sizes = {path: size for _, _, path, _, size, *_ in current_catalog(collection.index)}
    assert (sizes["broken.jpg"], sizes[heic.name]) == (3, None)
    report = collection.build()
    assert (report.encoded, report.photos, [bad.path for bad in report.bad]) == (1, 13, ["broken.jpg"])
    assert not collection.build().changed


@pytest.mark.usefixtures("own_decoders")
@pytest.mark.parametrize("program", ["/nowhere/python", "/bin/false"])
def test_no_photo_is_bad_without_decoder(program: str, collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", program)
        with pytest.raises(DecodingUnavailable, match="free memory, or allow more open files"):
            collection.build()
    report = collection.build()
    assert (report.photos, report.bad) == (12, ())


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (EndedDecoding("the system killed the decoder twice"), "the system killed the decoder twice"),
        (MemoryError(), "not enough memory to decode it"),
    ],
    ids=["ended", "memory"],
)
def test_a_photo_that_could_not_be_decoded_now_is_tried_again(
    problem: Exception, reason: str, collection: Collection, decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*_: object, **__: object) -> OpenedImage:
        raise problem

    with monkeypatch.context() as patch:
        patch.setattr(decoders, "run", ended)
        with pytest.raises(BadInvocation, match=reason):
            collection.build()
    assert collection.build().photos == 12


def test_values_that_are_not_finite_are_not_stored(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = model.Matcher.encode

    def overflowing(matcher: model.Matcher, images: Floats, modality: Modality) -> Tokens:
        tokens = encode(matcher, images, modality)
        features = tokens.features.copy()
        # The last photo of every batch gets values that float16 cannot hold.
        features[-1, 1:] = 1e6
        return Tokens(features, tokens.positions)

    monkeypatch.setattr(model.Matcher, "encode", overflowing)
    report = collection.build(batch=4)
    assert report.photos == 9
    assert {bad.reason for bad in report.bad} == {"the network returns values that are not finite for it"}
    assert verify(collection.index) == []
