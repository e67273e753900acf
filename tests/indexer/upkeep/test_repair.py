from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import model
from indexer import IndexRefused, build, open_index, read_summary, remove, repair, verify
from tests.indexer.damages import DAMAGES, flip, not_finite, shorten, sign, sql
from tests.indexer.galleries import catalog, save_photo, save_photos


@pytest.fixture(scope="module")
def updated(tmp_path_factory: pytest.TempPathFactory, matcher: model.Matcher) -> Path:
    """A gallery, and its index with two segments, in two generations; two photos are removed."""
    folder = tmp_path_factory.mktemp("updated")
    build([save_photos(folder / "photos", 12)], folder / "index", matcher)
    save_photos(folder / "photos", 5, start=20)
    build([], folder / "index", matcher)
    remove([], folder / "index", ids=[3, 14])
    return folder


@pytest.fixture
def copy(updated: Path, tmp_path: Path) -> Path:
    """An index to damage."""
    return Path(shutil.copytree(updated / "index", tmp_path / "index"))


def known(index: Path) -> dict[str, tuple[int, str]]:
    """Ids and statuses by path."""
    return {path: entry[:2] for path, entry in catalog(index).items()}


def tokens(index: Path, matcher: model.Matcher) -> dict[int, bytes]:
    """What the index holds of every photo."""
    with open_index(index, matcher) as opened:
        features = opened.photo_tokens(np.arange(opened.photo_count)).features.numpy()
        return {photo: features[place].tobytes() for place, photo in enumerate(opened.ids.tolist())}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
@pytest.mark.parametrize("name", ["tokens.npy", "scales.npy", "positions.npy"])
def test_a_damaged_segment_is_computed_again_from_the_photos(
    name: str, damage: Callable[[Path], None], updated: Path, copy: Path, matcher: model.Matcher
) -> None:
    first, second = sorted((copy / "segments").iterdir())
    damage(first / name)
    assert verify(copy)
    report = repair(copy, matcher)
    assert report.build is not None
    assert (len(report.problems), report.build.encoded, report.build.photos) == (1, 11, 15)
    assert (report.remaining, verify(copy)) == ((), [])
    assert known(copy) == known(updated / "index")
    assert tokens(copy, matcher) == tokens(updated / "index", matcher)
    # What was sound stays as it is.
    assert second.is_dir()


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_vectors_are_computed_again_and_photos_keep_their_ids(
    damage: Callable[[Path], None], updated: Path, copy: Path, matcher: model.Matcher
) -> None:
    damage(copy / "g000003" / "vectors.npy")
    report = repair(copy, matcher)
    assert report.build is not None
    assert (len(report.problems), report.build.encoded, report.remaining) == (1, 15, ())
    assert (known(copy), tokens(copy, matcher)) == (known(updated / "index"), tokens(updated / "index", matcher))


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
@pytest.mark.parametrize(
    "name", ["clusters.faiss", "centroid_tokens.npy", "centroid_positions.npy", "centroid_ret.npy"]
)
def test_damaged_clusters_are_made_anew_and_nothing_is_computed(
    name: str, damage: Callable[[Path], None], updated: Path, copy: Path, matcher: model.Matcher
) -> None:
    damage(copy / "g000003" / name)
    report = repair(copy, matcher)
    assert report.build is not None
    assert (report.build.encoded, report.build.photos) == (0, 15)
    assert (report.remaining, verify(copy)) == ((), [])
    assert known(copy) == known(updated / "index")
    assert tokens(copy, matcher) == tokens(updated / "index", matcher)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
@pytest.mark.parametrize("name", ["photos.sqlite", "manifest.json"])
def test_without_its_catalog_or_manifest_an_index_goes_on_from_the_generation_before(
    name: str, damage: Callable[[Path], None], updated: Path, copy: Path, matcher: model.Matcher
) -> None:
    damage(copy / "g000003" / name)
    report = repair(copy, matcher)
    assert report.build is not None
    assert report.problems
    # The generation before knew nothing of what was removed last.
    assert (report.build.encoded, report.build.photos, report.build.generation) == (0, 17, "g000004")
    assert (report.remaining, verify(copy)) == ((), [])
    assert {path: entry[0] for path, entry in known(copy).items()} == {
        path: entry[0] for path, entry in known(updated / "index").items()
    }


def test_without_any_catalog_all_is_computed_again_and_no_id_is_given_twice(
    updated: Path, copy: Path, matcher: model.Matcher
) -> None:
    for generation in copy.glob("g*"):
        shorten(generation / "photos.sqlite")
    report = repair(copy, matcher)
    assert report.build is not None
    assert "photos get new ids" in report.problems[-1]
    assert (report.build.encoded, report.build.photos) == (17, 17)
    assert verify(copy) == []
    assert sorted(entry[0] for entry in known(copy).values()) == list(range(18, 35))


@pytest.mark.parametrize("text", ["", "nonsense", "g000009"])
def test_an_index_whose_current_file_is_damaged_goes_on_from_its_newest_generation(
    text: str, updated: Path, copy: Path, matcher: model.Matcher
) -> None:
    (copy / "CURRENT").write_text(text)
    report = repair(copy, matcher)
    assert report.build is not None
    assert (report.build.encoded, report.build.photos) == (0, 15)
    assert verify(copy) == []
    assert known(copy) == known(updated / "index")


@pytest.mark.parametrize(
    "damage",
    [
        not_finite("segments/*/scales.npy"),
        sql("UPDATE photos SET row = 99 WHERE id = 3"),
        not_finite("g000001/centroid_tokens.npy"),
    ],
    ids=["of rows", "of the catalog", "of clusters"],
)
def test_contents_that_a_faulty_program_signed_are_repaired(
    damage: Callable[[Path], None], gallery: Path, index_path: Path, matcher: model.Matcher
) -> None:
    build([gallery], index_path, matcher)
    damage(index_path)
    sign(index_path)
    report = repair(index_path, matcher)
    assert len(report.problems) >= 1
    assert (report.remaining, verify(index_path)) == ((), [])
    assert read_summary(index_path).manifest.counts.photos == 12


def test_a_photo_that_is_lost_with_its_row_is_gone_and_one_that_changed_is_itself(
    gallery: Path, index_path: Path, matcher: model.Matcher
) -> None:
    build([gallery], index_path, matcher)
    ids = {path: entry[0] for path, entry in catalog(index_path).items()}
    (segment,) = (index_path / "segments").iterdir()
    flip(segment / "tokens.npy")
    (gallery / "Ännchen 001.png").unlink()
    save_photo(gallery / "Ännchen 002.png", 60)
    report = repair(index_path, matcher)
    assert report.build is not None
    assert (report.build.encoded, report.build.gone, report.remaining) == (11, 1, ())
    found = catalog(index_path)
    assert {path: entry[0] for path, entry in found.items()} == ids
    assert found["Ännchen 001.png"][1:] == ("gone", None, None, None)


def test_a_sound_index_is_left_alone(copy: Path, matcher: model.Matcher) -> None:
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.name != ".lock"}
    report = repair(copy, matcher)
    assert (report.problems, report.build, report.remaining) == ((), None, ())
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.name != ".lock"} == before


def test_an_index_of_another_checkpoint_or_a_newer_program_is_not_touched(
    copy: Path, matcher: model.Matcher, other_matcher: model.Matcher
) -> None:
    flip(next((copy / "segments").iterdir()) / "tokens.npy")
    with pytest.raises(IndexRefused, match=r"other photo weights .* --weights"):
        repair(copy, other_matcher)
    manifest = copy / "g000003" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format_version": 8', '"format_version": 9'))
    with pytest.raises(IndexRefused, match="has index format 9"):
        repair(copy, matcher)
    assert (copy / "CURRENT").read_text() == "g000003\n"


def test_where_nothing_is_left_a_sentence_says_so(copy: Path, tmp_path: Path, matcher: model.Matcher) -> None:
    for manifest in copy.glob("g*/manifest.json"):
        manifest.unlink()
    with pytest.raises(IndexRefused, match="delete the folder and build again"):
        repair(copy, matcher)
    with pytest.raises(IndexRefused, match="there is no index"):
        repair(tmp_path / "nowhere", matcher)
