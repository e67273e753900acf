import os
import sys
from pathlib import Path

import pytest

from sketch_search import model
from sketch_search.indexer import BadInvocation, BuildRequest, build, read_summary, remove, verify
from sketch_search.model.decoding import Decoders
from sketch_search.model.engine import Floats, Modality, Tokens
from sketch_search.model.errors import DecodingUnavailable, EndedDecoding
from sketch_search.model.images import OpenedImage
from sketch_search.model.images.files import IMAGE_SUFFIXES
from tests.indexer.disks import bound_by_permissions
from tests.indexer.galleries import Collection, catalog, current_catalog, save_photo
from tests.pictures import ODD_FILES, OddFile

ODD = [odd for odd in ODD_FILES if Path(odd.name).suffix.lower() in {*IMAGE_SUFFIXES, ""}]


@pytest.fixture(scope="module")
def odd_index(tmp_path_factory: pytest.TempPathFactory, matcher: model.Matcher) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    save_photo(folder / "photos" / "good.png", 0)
    for odd in ODD_FILES:
        (folder / "photos" / odd.name).write_bytes(odd.data)
    build(folder / "index", BuildRequest([folder / "photos"], clusters=2), matcher)
    return folder / "index"


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd.name)
def test_an_odd_file_is_indexed_or_reported_and_never_stops_the_build(odd: OddFile, odd_index: Path) -> None:
    reasons = {bad.path: bad.reason for bad in read_summary(odd_index).bad}
    status = catalog(odd_index)[odd.name][1]
    assert status == ("indexed" if odd.opens else "bad")
    assert (odd.name in reasons) is not odd.opens
    if not odd.opens:
        assert reasons[odd.name].strip()
        assert "\n" not in reasons[odd.name]


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
            assert index.open_photo(entries[shown][0]) == file.read_bytes()
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
    for encoded, photos in ((12, 12), (0, 12)):
        empty.write_bytes(b"")
        report = collection.build()
        assert [(bad.path, bad.reason) for bad in report.bad] == [("empty.png", "the file is empty")]
        assert (report.encoded, report.photos) == (encoded, photos)
        save_photo(empty, 60)
        assert (collection.build().photos, collection.build().changed) == (13, False)


def test_an_unreadable_file_is_reported_and_tried_again(collection: Collection) -> None:
    (collection.photos / "Ännchen 001.png").chmod(0)
    with bound_by_permissions():
        assert [bad.reason for bad in collection.build().bad] == ["it cannot be read: Permission denied"]
    (collection.photos / "Ännchen 001.png").chmod(0o600)
    assert collection.build().bad == ()


@pytest.mark.usefixtures("own_decoders")
def test_a_heic_file_is_tried_again_once_its_decoder_is_installed(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    # The broken file is known by its size and time; only the other is read again.
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
        with pytest.raises(DecodingUnavailable):
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
