import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from sketch_search import model
from sketch_search.indexer import IndexRefused, read_summary, remove, verify
from sketch_search.indexer.building import builds
from tests.indexer.damages import DAMAGES, flip, shorten
from tests.indexer.galleries import Collection, catalog, save_photo, save_photos


@pytest.fixture(scope="module")
def updated(tmp_path_factory: pytest.TempPathFactory, matcher: model.Matcher) -> Collection:
    """A collection with an index of two segments, in two generations; one photo is removed."""
    folder = tmp_path_factory.mktemp("updated")
    updated = Collection(save_photos(folder / "photos", 12), folder / "index", matcher)
    updated.build()
    save_photos(updated.photos, 5, start=20)
    updated.update()
    remove([], updated.index, ids=[3])
    return updated


@pytest.fixture
def copied(updated: Collection, tmp_path: Path) -> Collection:
    return updated.copied(tmp_path)


def known(index: Path) -> dict[str, tuple[int, str]]:
    return {path: entry[:2] for path, entry in catalog(index).items()}


def tokens(collection: Collection) -> dict[int, bytes]:
    with collection.open() as opened:
        features = opened.photo_tokens(np.arange(opened.photo_count)).features
        return {photo: features[place].tobytes() for place, photo in enumerate(opened.ids.tolist())}


# Each damaged part, and how many photos are computed again: those of the first segment, all, or none.
PARTS = {
    **dict.fromkeys(("tokens.npy", "scales.npy", "positions.npy"), ("segments/s000001-*", 11)),
    "vectors.npy": ("g000003", 16),
    **dict.fromkeys(("clusters.npy", "centroid_tokens.npy", "centroid_ret.npy", "places.npy"), ("g000003", 0)),
}
DAMAGED = [*((name, flip) for name in PARTS), *product(("tokens.npy", "clusters.npy"), (shorten, Path.unlink))]


@pytest.mark.parametrize(("name", "damage"), DAMAGED)
def test_damaged_files_are_rebuilt_from_the_photos_and_everything_else_stays(
    name: str, damage: Callable[[Path], None], updated: Collection, copied: Collection
) -> None:
    folder, encoded = PARTS[name]
    damage(next(copied.index.glob(folder)) / name)
    (problem,) = verify(copied.index)
    assert problem.endswith("build this index again (`sketch-search index build`) to rebuild the damaged parts.")
    report = copied.update()
    assert (len(report.damaged), report.encoded, report.photos) == (1, encoded, 16)
    assert verify(copied.index) == []
    assert not copied.update().changed
    assert (known(copied.index), tokens(copied)) == (known(updated.index), tokens(updated))


def test_a_build_reads_no_file_that_is_as_it_was_until_a_verification_finds_damage(copied: Collection) -> None:
    copied.update()
    damaged = next(copied.index.glob("segments/s000001-*")) / "tokens.npy"
    flip(damaged)
    # A disk that fails changes a file without its times.
    checked = copied.index / "checked.json"
    stamps, status = json.loads(checked.read_text()), damaged.stat()
    name = damaged.relative_to(copied.index).as_posix()
    stamps[name] = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
    checked.write_text(json.dumps(stamps))
    assert copied.update().damaged == ()
    assert len(verify(copied.index)) == 1
    assert len(copied.update().damaged) == 1
    assert verify(copied.index) == []


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
@pytest.mark.parametrize("name", ["photos.sqlite", "manifest.json"])
def test_without_its_catalog_or_manifest_an_index_goes_on_from_the_generation_before(
    name: str, damage: Callable[[Path], None], updated: Collection, copied: Collection
) -> None:
    damage(copied.index / "g000003" / name)
    report = copied.update()
    assert report.damaged
    # The generation before knew nothing of what was removed last.
    assert (report.encoded, report.photos, report.generation) == (0, 17, "g000004")
    assert verify(copied.index) == []
    before, after = ({path: entry[0] for path, entry in known(one.index).items()} for one in (updated, copied))
    assert before == after


def test_without_a_catalog_all_is_computed_and_no_id_given_twice(updated: Collection, copied: Collection) -> None:
    for generation in copied.index.glob("g*"):
        shorten(generation / "photos.sqlite")
    report = copied.update()
    assert "photos get new ids" in report.damaged[-1]
    assert (report.encoded, report.photos) == (17, 17)
    assert verify(copied.index) == []
    assert sorted(entry[0] for entry in known(copied.index).values()) == list(range(18, 35))


@pytest.mark.parametrize("text", ["", "nonsense", "g000009"])
def test_a_damaged_current_file_names_no_generation(text: str, updated: Collection, copied: Collection) -> None:
    (copied.index / "CURRENT").write_text(text)
    report = copied.build()
    assert (report.encoded, report.photos, len(report.damaged)) == (0, 16, 1)
    assert verify(copied.index) == []
    assert known(copied.index) == known(updated.index)


def test_where_nothing_is_left_a_sentence_says_so_and_nothing_is_written(copied: Collection) -> None:
    for manifest in copied.index.glob("g*/manifest.json"):
        manifest.unlink()
    left = sorted(copied.index.rglob("*"))
    for work in (copied.update, copied.build, lambda: verify(copied.index)):
        with pytest.raises(IndexRefused, match=r"no manifest of .* can be read; delete the folder and build again"):
            work()
    assert sorted(copied.index.rglob("*")) == left


def test_small_segments_are_merged_before_there_are_many(built: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 2 * 5 * builds.MAX_SEGMENTS <= 128
    monkeypatch.setattr(builds, "MAX_SEGMENTS", 3)
    (largest,), counts = read_summary(built.index).manifest.segments, []
    for number in range(20, 24):
        save_photo(built.photos / f"{number}.png", number)
        built.update()
        segments = read_summary(built.index).manifest.segments
        assert segments[0] == largest
        counts.append([segment.rows for segment in segments[1:]])
    assert (counts, verify(built.index)) == ([[1], [1, 1], [3], [3, 1]], [])
    monkeypatch.setattr(builds, "MAX_SEGMENTS", 2)
    assert built.update().changed
    assert not built.update().changed
    assert [segment.rows for segment in read_summary(built.index).manifest.segments] == [12, 4]
    assert verify(built.index) == []
