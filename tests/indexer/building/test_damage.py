from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from sketch_search import model
from sketch_search.indexer import IndexRefused, read_summary, remove, verify
from sketch_search.indexer.building import builder
from tests.indexer.galleries import Collection, catalog, flip, save_photo, save_photos, shorten


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


# Each damaged part, and how many photos are computed again: those of the first segment, or all.
PARTS = {
    **dict.fromkeys(("tokens.npy", "scales.npy", "positions.npy"), ("segments/s000001-*", 11)),
    **dict.fromkeys(("vectors.npy", "clusters.npy", "centroid_tokens.npy", "places.npy"), ("g000003", 16)),
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


def test_a_build_reads_no_file_until_a_verification_finds_damage(copied: Collection) -> None:
    flip(next(copied.index.glob("segments/s000001-*")) / "tokens.npy")
    assert copied.update().damaged == ()
    assert len(verify(copied.index)) == 1
    assert len(copied.update().damaged) == 1
    assert verify(copied.index) == []
    assert copied.update().damaged == ()


def test_without_its_catalog_all_is_computed_and_no_id_given_twice(updated: Collection, copied: Collection) -> None:
    shorten(copied.index / "g000003" / "photos.sqlite")
    report = copied.update()
    assert "photos get new ids" in report.damaged[-1]
    assert (report.encoded, report.photos) == (17, 17)
    assert verify(copied.index) == []
    assert sorted(entry[0] for entry in known(copied.index).values()) == list(range(18, 35))


@pytest.mark.parametrize("text", ["", "nonsense", "g000009"])
@pytest.mark.parametrize("name", ["CURRENT", "g000003/manifest.json"])
def test_without_a_manifest_a_sentence_says_so_and_nothing_is_written(name: str, text: str, copied: Collection) -> None:
    (copied.index / name).write_text(text)
    left = sorted(copied.index.rglob("*"))
    for work in (copied.update, copied.build, lambda: verify(copied.index)):
        with pytest.raises(IndexRefused, match=r"delete .* and build again"):
            work()
    assert sorted(copied.index.rglob("*")) == left


def test_small_segments_are_merged_before_there_are_many(built: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 2 * 5 * builder.MAX_SEGMENTS <= 128
    monkeypatch.setattr(builder, "MAX_SEGMENTS", 3)
    (largest,), counts = read_summary(built.index).manifest.segments, []
    for number in range(20, 24):
        save_photo(built.photos / f"{number}.png", number)
        built.update()
        segments = read_summary(built.index).manifest.segments
        assert segments[0] == largest
        counts.append([segment.rows for segment in segments[1:]])
    assert (counts, verify(built.index)) == ([[1], [1, 1], [3], [3, 1]], [])
    monkeypatch.setattr(builder, "MAX_SEGMENTS", 2)
    assert built.update().changed
    assert not built.update().changed
    assert [segment.rows for segment in read_summary(built.index).manifest.segments] == [12, 4]
    assert verify(built.index) == []
