from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from sketch_search.indexer.store.generation import current_generation
from sketch_search.indexer.store.location import IndexFolder
from sketch_search.model.engine import unit
from sketch_search.model.search.clusters import Vectors, assign, default_clusters
from tests.indexer.galleries import Collection, clustered, save_photos

WIDTH = 8
Floats = npt.NDArray[np.float32]


def photos(count: int, seed: int = 0) -> Floats:
    return unit(np.random.default_rng(seed).normal(size=(count, WIDTH)))


def vectors_of(values: Floats) -> Vectors:
    centroids, of_photo = clustered(values, default_clusters(len(values)))
    sizes = np.bincount(of_photo, minlength=len(centroids))
    return Vectors(values[np.argsort(of_photo, kind="stable")].astype(np.float16), sizes, centroids)


def every(vectors: Vectors) -> npt.NDArray[np.int64]:
    return np.arange(len(vectors.sizes))


def exact(vectors: Vectors, direction: Floats, count: int, mask: npt.NDArray[np.bool_] | None = None) -> set[int]:
    products = vectors.of() @ direction
    if mask is not None:
        products[~mask] = -np.inf
    return set(np.argsort(-products)[:count].tolist())


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 90), wanted=st.integers(1, 40), several=st.integers(1, 3), data=st.data())
def test_with_every_cell_opened_the_best_are_found(count: int, wanted: int, several: int, data: st.DataObject) -> None:
    vectors, directions = vectors_of(photos(count)), photos(several, seed=1)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    for some in (None, mask):
        able = min(wanted, count if some is None else int(some.sum()))
        found = vectors.near(directions, wanted, some, every(vectors)).tolist()
        assert found == sorted(set().union(*(exact(vectors, one, able, some) for one in directions)))


def test_a_cell_may_be_empty_and_a_gallery_too_and_rows_that_are_not_shown_are_never_found() -> None:
    values = photos(12).astype(np.float16)
    sizes, centroids = np.array([4, 0, 5]), photos(3, seed=2)
    vectors = Vectors(values, sizes, centroids)
    assert (vectors.rows_of(1).tolist(), vectors.rows_of(np.array([2, 1])).tolist()) == ([], [4, 5, 6, 7, 8])
    assert vectors.near(photos(1), 20, None, every(vectors)).tolist() == [*range(9)]
    assert (len(vectors.near(photos(1), 3, None, every(vectors))), len(vectors.of())) == (3, 9)
    nothing = Vectors(values[:0], np.zeros(3, np.int64), centroids)
    assert (nothing.count, nothing.near(photos(1), 3, None, every(nothing)).tolist()) == (0, [])


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
