"""The files by which a large gallery is opened and searched, here of small galleries: they follow the index."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import model
from indexer import IndexRefused, build, compact, open_index, remove, repair, verify
from indexer.building.writer import Clustering, write_inversion
from indexer.store import EmbedderEntry, InvertedFile, RowArrays, Rows, SegmentRow, normalised
from tests.indexer.damages import sign
from tests.indexer.galleries import save_photos


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, matcher: model.Matcher) -> Path:
    """An index of twelve photos that has an inverted file."""
    folder = tmp_path_factory.mktemp("inverted")
    build([save_photos(folder / "photos", 12)], folder / "index", matcher, embedder="ret", inverted_from=12)
    return folder


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    """The same, to be changed: index and photos."""
    shutil.copytree(built, tmp_path / "copy")
    path = tmp_path / "copy" / "index" / "g000001" / "manifest.json"
    path.write_text(path.read_text().replace(str(built), str(tmp_path / "copy")))
    return tmp_path / "copy"


def check(index: Path, matcher: model.Matcher, photos: int) -> None:
    """Opened by its places, the index shows what its catalog says, and its inverted file finds every photo."""
    with open_index(index, matcher) as opened:
        by_catalog = opened._places_of_catalog()
        assert (opened.ids.tolist(), opened.photo_count) == (by_catalog.ids.tolist(), photos)
        assert opened._row.tolist() == by_catalog.rows.tolist()
        assert opened.inverted is not None
        every = np.arange(photos)
        directions = normalised(opened.photo_ret(every).numpy())
        found = [opened.inverted.nearest(direction, 1, probed=opened.cluster_count) for direction in directions]
        # Photos may be as near to each other as one byte can tell.
        near = [directions[place] @ directions[one].T for place, one in zip(every, found, strict=True)]
        assert np.concatenate(near).min() > 0.999
    assert verify(index) == []


def test_a_small_index_has_neither_places_nor_an_inverted_file(tmp_path: Path, matcher: model.Matcher) -> None:
    build([save_photos(tmp_path / "photos", 3)], tmp_path / "index", matcher, embedder="ret")
    with open_index(tmp_path / "index", matcher) as index:
        assert index.inverted is None
        assert not any(file.name == "places.npy" for file in index.manifest.files)


def test_it_follows_photos_that_come_and_go_and_compaction(copy: Path, matcher: model.Matcher) -> None:
    index = copy / "index"
    check(index, matcher, 12)
    save_photos(copy / "photos", 5, start=20)
    build([], index, matcher)
    check(index, matcher, 17)
    remove([], index, ids=[2, 15])
    check(index, matcher, 15)
    compact(index)
    check(index, matcher, 15)


def test_a_gallery_may_shrink_to_one_photo_and_loses_it_with_its_clusters(copy: Path, matcher: model.Matcher) -> None:
    index = copy / "index"
    remove([], index, ids=list(range(2, 13)))
    check(index, matcher, 1)
    build([], index, matcher, recluster=True)
    with open_index(index, matcher) as opened:
        assert (opened.photo_count, opened.inverted) == (1, None)
    assert verify(index) == []


def test_an_index_that_has_grown_large_enough_gets_one_though_nothing_else_has_changed(
    tmp_path: Path, matcher: model.Matcher
) -> None:
    build([save_photos(tmp_path / "photos", 6)], tmp_path / "index", matcher, embedder="ret")
    assert build([], tmp_path / "index", matcher, inverted_from=7).changed is False
    assert build([], tmp_path / "index", matcher, inverted_from=6).changed is True
    check(tmp_path / "index", matcher, 6)


FILES = ["places.npy", "inverted_cells.npy", "inverted_ranges.npy", "inverted_sizes.npy", "inverted_lists.bin"]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [Path.unlink, flip], ids=["missing", "changed"])
@pytest.mark.parametrize("name", FILES)
def test_what_is_missing_or_changed_is_told_and_made_anew(
    name: str, damage: Callable[[Path], None], copy: Path, matcher: model.Matcher
) -> None:
    index = copy / "index"
    damage(index / "g000001" / name)
    if damage is Path.unlink:
        with pytest.raises(IndexRefused, match=f"{name} .*is missing.*verify --repair"):
            open_index(index, matcher)
    assert len(verify(index)) == 1
    report = repair(index, matcher)
    assert report.build is not None
    assert (report.remaining, report.build.encoded, report.build.drift.automatic) == ((), 0, True)
    check(index, matcher, 12)


def test_places_that_the_catalog_does_not_know_are_told(copy: Path, matcher: model.Matcher) -> None:
    generation = copy / "index" / "g000001"
    places = np.load(generation / "places.npy")
    places[:, 0] = places[::-1, 0]
    np.save(generation / "places.npy", places)
    sign(copy / "index")
    assert verify(copy / "index") == ["places.npy does not say what the catalog says."]
    repair(copy / "index", matcher)
    check(copy / "index", matcher, 12)


@pytest.mark.parametrize(("column", "value"), [(1, 99), (2, 1), (3, 12), (3, -1)])
def test_places_that_are_nowhere_are_refused(column: int, value: int, copy: Path, matcher: model.Matcher) -> None:
    places = np.load(copy / "index" / "g000001" / "places.npy")
    places[-1, column] = value
    np.save(copy / "index" / "g000001" / "places.npy", places)
    with pytest.raises(IndexRefused, match=r"past the end of a segment.*verify --repair"):
        open_index(copy / "index", matcher)


def test_clusters_by_other_vectors_are_not_the_cells(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    ret = random.standard_normal((100, 4)).astype(np.float32)
    rows = Rows({"s": RowArrays(ret, np.ones((100, 3), np.float32))})
    refs = [SegmentRow("s", row) for row in range(100)]
    clusters = np.arange(100) // 25
    clustering = Clustering(np.ones((4, 3), np.float32), {}, frozenset(), None, kept=None)
    clip = EmbedderEntry(kind="clip", name="CLIP", description="CLIP", spec="clip", sha256="0")
    write_inversion(tmp_path, rows, refs, clusters, clustering, clip, anew=False)
    inverted = InvertedFile(tmp_path, 100, 4)
    assert inverted.centroids.shape == (10, 4)
    assert inverted.problems() == []
