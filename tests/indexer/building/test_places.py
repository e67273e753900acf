"""Where an index says that its rows are, and their vectors: both follow photos that come, go and change clusters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import model
from indexer import build, compact, open_index, remove, repair, verify
from indexer.store import Places, normalised, read_catalog
from tests.indexer.damages import DAMAGES
from tests.indexer.galleries import save_photos


def check(index: Path, matcher: model.Matcher, photos: int) -> None:
    """The places say what the catalog says, and every photo is the nearest to itself."""
    with open_index(index, matcher) as opened:
        manifest, folder = opened.manifest, index / opened.generation
        sizes = [(entry.id, entry.rows) for entry in manifest.segments]
        places = Places.open(folder, manifest.counts.rows)
        known = Places.of_files(read_catalog(folder / "photos.sqlite"), sizes, opened.cluster_count)
        assert np.array_equal(places.table(), known.table())
        assert (opened.photo_count, len(opened.ids)) == (photos, photos)
        rows = np.arange(photos)
        vectors = opened.vectors.of(rows).numpy()
        ret = normalised(opened.photo_tokens(rows).ret.numpy())
        assert (vectors * ret).sum(axis=1).min() > 0.999
        for row, vector in enumerate(vectors):
            (nearest,) = opened.vectors.near(vector[None], 1, None, np.arange(opened.cluster_count)).tolist()
            assert vectors[nearest] @ vector >= vectors[row] @ vector - 1e-3
    assert verify(index) == []


def test_places_and_vectors_follow_photos_that_come_and_go_clusters_and_compaction(
    tmp_path: Path, matcher: model.Matcher
) -> None:
    index, gallery = tmp_path / "index", save_photos(tmp_path / "photos", 12)
    build([gallery], index, matcher)
    check(index, matcher, 12)
    segments = set((index / "segments").iterdir())
    save_photos(gallery, 5, start=20)
    build([], index, matcher)
    check(index, matcher, 17)
    remove([], index, ids=[2, 15])
    check(index, matcher, 15)
    # Clustering again rewrites no tokens.
    assert build([], index, matcher, clusters=5).encoded == 0
    check(index, matcher, 15)
    assert segments < set((index / "segments").iterdir())
    compact(index)
    check(index, matcher, 15)
    remove([], index, ids=[*range(3, 15), 16, 17])
    check(index, matcher, 1)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_places_are_made_anew_and_nothing_is_computed(
    damage: object, tmp_path: Path, matcher: model.Matcher
) -> None:
    index = tmp_path / "index"
    build([save_photos(tmp_path / "photos", 6)], index, matcher)
    assert callable(damage)
    damage(index / "g000001" / "places.npy")
    assert len(verify(index)) == 1
    report = repair(index, matcher)
    assert report.build is not None
    assert (report.remaining, report.build.encoded) == ((), 0)
    check(index, matcher, 6)
