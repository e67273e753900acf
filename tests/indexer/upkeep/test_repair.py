from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import model
from indexer import IndexRefused, read_summary, remove, repair, verify
from tests.indexer.damages import DAMAGES, flip, not_finite, shorten, sign, sql
from tests.indexer.galleries import Collection, catalog, save_photo, save_photos


@pytest.fixture(scope="module")
def updated(tmp_path_factory: pytest.TempPathFactory, matcher: model.Matcher) -> Collection:
    """A collection with an index of two segments, in two generations; two photos are removed."""
    folder = tmp_path_factory.mktemp("updated")
    updated = Collection(save_photos(folder / "photos", 12), folder / "index", matcher)
    updated.build()
    save_photos(updated.photos, 5, start=20)
    updated.update()
    remove([], updated.index, ids=[3, 14])
    return updated


@pytest.fixture
def copied(updated: Collection, tmp_path: Path) -> Collection:
    """An index to damage."""
    return updated.copied(tmp_path)


def known(index: Path) -> dict[str, tuple[int, str]]:
    """Ids and statuses by path."""
    return {path: entry[:2] for path, entry in catalog(index).items()}


def tokens(collection: Collection) -> dict[int, bytes]:
    """Reads the tokens of every photo in the index."""
    with collection.open() as opened:
        features = opened.photo_tokens(np.arange(opened.photo_count)).features
        return {photo: features[place].tobytes() for place, photo in enumerate(opened.ids.tolist())}


# Each damaged part, and how many photos are computed again: those of the first segment, all, or none.
PARTS = {
    **dict.fromkeys(("tokens.npy", "scales.npy", "positions.npy"), ("segments/s000001-*", 11)),
    "vectors.npy": ("g000003", 15),
    **dict.fromkeys(("clusters.faiss", "centroid_tokens.npy", "centroid_positions.npy"), ("g000003", 0)),
    "centroid_ret.npy": ("g000003", 0),
}
DAMAGED: list[tuple[str, Callable[[Path], None]]] = [(name, flip) for name in PARTS]
DAMAGED += [
    (name, damage) for name in ("tokens.npy", "clusters.faiss") for damage in (DAMAGES["cut short"], DAMAGES["gone"])
]


@pytest.mark.parametrize(("name", "damage"), DAMAGED)
def test_what_is_damaged_is_made_anew_from_the_photos_and_all_that_is_known_stays(
    name: str, damage: Callable[[Path], None], updated: Collection, copied: Collection
) -> None:
    folder, encoded = PARTS[name]
    damage(next(copied.index.glob(folder)) / name)
    assert verify(copied.index)
    report = repair(copied.index, copied.matcher)
    assert report.build is not None
    assert (len(report.problems), report.build.encoded, report.build.photos) == (1, encoded, 15)
    assert (report.remaining, verify(copied.index)) == ((), [])
    assert (known(copied.index), tokens(copied)) == (known(updated.index), tokens(updated))


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
@pytest.mark.parametrize("name", ["photos.sqlite", "manifest.json"])
def test_without_its_catalog_or_manifest_an_index_goes_on_from_the_generation_before(
    name: str, damage: Callable[[Path], None], updated: Collection, copied: Collection
) -> None:
    damage(copied.index / "g000003" / name)
    report = repair(copied.index, copied.matcher)
    assert report.build is not None
    assert report.problems
    # The generation before knew nothing of what was removed last.
    assert (report.build.encoded, report.build.photos, report.build.generation) == (0, 17, "g000004")
    assert (report.remaining, verify(copied.index)) == ((), [])
    before, after = ({path: entry[0] for path, entry in known(one.index).items()} for one in (updated, copied))
    assert before == after


def test_without_any_catalog_all_is_computed_again_and_no_id_is_given_twice(
    updated: Collection, copied: Collection
) -> None:
    for generation in copied.index.glob("g*"):
        shorten(generation / "photos.sqlite")
    report = repair(copied.index, copied.matcher)
    assert report.build is not None
    assert "photos get new ids" in report.problems[-1]
    assert (report.build.encoded, report.build.photos) == (17, 17)
    assert verify(copied.index) == []
    assert sorted(entry[0] for entry in known(copied.index).values()) == list(range(18, 35))


@pytest.mark.parametrize("text", ["", "nonsense", "g000009"])
def test_an_index_whose_current_file_is_damaged_goes_on_from_its_newest_generation(
    text: str, updated: Collection, copied: Collection
) -> None:
    (copied.index / "CURRENT").write_text(text)
    report = repair(copied.index, copied.matcher)
    assert report.build is not None
    assert (report.build.encoded, report.build.photos) == (0, 15)
    assert verify(copied.index) == []
    assert known(copied.index) == known(updated.index)


@pytest.mark.parametrize(
    "damage",
    [
        not_finite("segments/*/scales.npy"),
        sql("UPDATE photos SET row = 99 WHERE id = 3"),
        not_finite("g000001/centroid_tokens.npy"),
    ],
    ids=["of rows", "of the catalog", "of clusters"],
)
def test_contents_that_a_faulty_program_signed_are_repaired(damage: Callable[[Path], None], built: Collection) -> None:
    damage(built.index)
    sign(built.index)
    report = repair(built.index, built.matcher)
    assert len(report.problems) >= 1
    assert (report.remaining, verify(built.index)) == ((), [])
    assert read_summary(built.index).manifest.counts.photos == 12


def test_a_photo_that_is_lost_with_its_row_is_gone_and_one_that_changed_is_itself(built: Collection) -> None:
    ids = {path: entry[0] for path, entry in catalog(built.index).items()}
    (segment,) = (built.index / "segments").iterdir()
    flip(segment / "tokens.npy")
    (built.photos / "Ännchen 001.png").unlink()
    save_photo(built.photos / "Ännchen 002.png", 60)
    report = repair(built.index, built.matcher)
    assert report.build is not None
    assert (report.build.encoded, report.build.gone, report.remaining) == (11, 1, ())
    found = catalog(built.index)
    assert {path: entry[0] for path, entry in found.items()} == ids
    assert found["Ännchen 001.png"][1:] == ("gone", None, None, None)


def test_a_sound_index_is_left_alone(copied: Collection) -> None:
    before = {path: path.stat().st_mtime_ns for path in copied.index.rglob("*") if path.name != ".lock"}
    report = repair(copied.index, copied.matcher)
    assert (report.problems, report.build, report.remaining) == ((), None, ())
    assert {path: path.stat().st_mtime_ns for path in copied.index.rglob("*") if path.name != ".lock"} == before


def test_an_index_of_another_checkpoint_or_a_newer_program_is_not_touched(
    copied: Collection, other_matcher: model.Matcher
) -> None:
    flip(next((copied.index / "segments").iterdir()) / "tokens.npy")
    with pytest.raises(IndexRefused, match=r"other photo weights .* --weights"):
        repair(copied.index, other_matcher)
    manifest = copied.index / "g000003" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format_version": 8', '"format_version": 9'))
    with pytest.raises(IndexRefused, match="has index format 9"):
        repair(copied.index, copied.matcher)
    assert (copied.index / "CURRENT").read_text() == "g000003\n"


def test_where_nothing_is_left_a_sentence_says_so(copied: Collection, tmp_path: Path) -> None:
    for manifest in copied.index.glob("g*/manifest.json"):
        manifest.unlink()
    with pytest.raises(IndexRefused, match="delete the folder and build again"):
        repair(copied.index, copied.matcher)
    with pytest.raises(IndexRefused, match="there is no index"):
        repair(tmp_path / "nowhere", copied.matcher)
