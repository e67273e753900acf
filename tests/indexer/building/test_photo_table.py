import numpy as np

from sketch_search.indexer import read_summary, remove, verify
from sketch_search.indexer.store.generation import Generation
from sketch_search.indexer.store.vectors import PhotoTable
from sketch_search.model.engine import unit
from tests.indexer.galleries import Collection, save_photos


def check(built: Collection, photos: int) -> None:
    """The table of photos agrees with the catalog, and every photo is the nearest to itself."""
    with built.open() as opened:
        manifest, folder = opened.manifest, built.index / opened.generation
        table = PhotoTable.open(folder, manifest.counts.rows)
        known = Generation(opened.generation, folder, manifest).photo_table_by_catalog()
        assert np.array_equal(table.array(), known.array())
        assert (opened.photo_count, len(opened.ids)) == (photos, photos)
        rows = np.arange(photos)
        vectors = opened.vectors.of(rows)
        ret = unit(opened.photo_tokens(rows).ret)
        assert (vectors * ret).sum(axis=1).min() > 0.999
        for row, vector in enumerate(vectors):
            (nearest,) = opened.vectors.near(vector[None], 1, None, np.arange(opened.cluster_count)).tolist()
            assert vectors[nearest] @ vector >= vectors[row] @ vector - 1e-3
    assert verify(built.index) == []


def test_the_table_and_vectors_follow_photos_that_come_and_go_clusters_and_merged_segments(built: Collection) -> None:
    check(built, 12)
    segments = set((built.index / "segments").iterdir())
    save_photos(built.photos, 5, start=20)
    built.update()
    check(built, 17)
    remove([], built.index, ids=[2, 15])
    check(built, 15)
    # Clustering again rewrites no tokens.
    assert built.update(clusters=5).encoded == 0
    check(built, 15)
    assert segments < set((built.index / "segments").iterdir())
    # More than a tenth of the rows is dead, so the segments are merged.
    assert built.update().encoded == 0
    (merged,) = read_summary(built.index).manifest.segments
    assert (merged.rows, built.update().changed) == (15, False)
    check(built, 15)
    remove([], built.index, ids=[*range(3, 15), 16, 17])
    check(built, 1)
