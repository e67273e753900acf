"""Files and folders that are excluded by patterns: as long as the patterns are kept, by every build."""

import unicodedata
from pathlib import Path

import pytest

from sketch_search.indexer import BadInvocation, BuildRequest, build
from sketch_search.indexer.building.exclusions import MAX_LENGTH, MAX_PATTERNS, Exclusions
from tests.indexer.galleries import Collection, catalog, save_photo
from tests.pictures import SHAPES, dng, encoded, photo

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
def test_patterns_leave_the_same_photos_in_a_new_index_and_in_one_that_has_them(
    patterns: list[str], left: set[str], collection: Collection, tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    for number, path in enumerate(PATHS):
        save_photo(folder / path, number)
    build(collection.index, BuildRequest([folder], clusters=1), collection.matcher)
    report = collection.update(excluded=patterns)
    assert (report.encoded, report.gone, report.kept) == (0, 0, [])
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


def test_accents_match_however_they_are_written() -> None:
    for form in ("NFC", "NFD"):
        exclusions = Exclusions([unicodedata.normalize(form, "Mädchen/")])
        for other in ("NFC", "NFD"):
            assert exclusions.hides(unicodedata.normalize(other, "Ägypten/Mädchen/1.jpg"))


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
