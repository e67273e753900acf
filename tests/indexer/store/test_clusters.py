from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sketch_search.indexer.store.generation import current_generation
from sketch_search.indexer.store.location import IndexFolder
from sketch_search.model.engine import unit
from sketch_search.model.search.clusters import assign
from tests.indexer.galleries import Collection, clustered, save_photos


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 60), data=st.data())
def test_every_photo_is_in_one_cluster_and_no_cluster_is_empty(count: int, data: st.DataObject) -> None:
    wanted = data.draw(st.integers(1, count))
    # Few distinct points, so that some clusters must end empty.
    some = unit(np.random.default_rng(0).normal(size=(count, 8)))
    points = some[np.random.default_rng(count).integers(0, max(1, count // 2), count)]
    centroids, assignment = clustered(points, wanted)
    assert sorted(set(assignment.tolist())) == list(range(len(centroids)))
    assert len(assignment) == count
    assert len(centroids) <= wanted
    assert np.array_equal(assign(points, centroids), assignment)


def test_a_gallery_of_more_than_twice_the_photos_gets_new_clusters(collection: Collection) -> None:
    assert collection.build().clusters == 3
    save_photos(collection.photos, 6, start=20)
    assert collection.build().clusters == 3, "18 photos are as many as 3 clusters may have"
    save_photos(collection.photos, 1, start=40)
    report = collection.build()
    assert (report.encoded, report.clusters) == (1, 4)
    assert collection.build(clusters=2).clusters == 2
    save_photos(collection.photos, 6, start=60)
    assert collection.build().clusters == 2


def test_a_gallery_of_other_photos_gets_new_clusters(collection: Collection, tmp_path: Path) -> None:
    collection.build(clusters=2)
    for photo in collection.photos.rglob("*.png"):
        photo.unlink()
    save_photos(collection.photos, 12, start=20)
    collection.build(allow_loss=True)
    fresh = replace(collection, index=tmp_path / "fresh")
    fresh.build(clusters=2)
    updated, anew = (current_generation(IndexFolder(one.index)).read_means() for one in (collection, fresh))
    assert np.array_equal(updated, anew)
