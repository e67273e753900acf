from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer import IndexRefused
from indexer.store.clusters import default_clusters, normalised
from indexer.store.vectors import Places, Vectors
from tests.indexer.galleries import clustered

WIDTH = 8
Floats = npt.NDArray[np.float32]


def photos(count: int, seed: int = 0) -> Floats:
    return normalised(np.random.default_rng(seed).normal(size=(count, WIDTH)))


def vectors_of(values: Floats, cells: int | None = None) -> Vectors:
    centroids, of_photo = clustered(values, default_clusters(len(values)) if cells is None else cells)
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
@given(count=st.integers(1, 90), wanted=st.integers(1, 40), data=st.data())
def test_with_every_cell_opened_the_best_are_found_whatever_is_left_out(
    count: int, wanted: int, data: st.DataObject
) -> None:
    vectors = vectors_of(photos(count))
    direction = photos(1, seed=1)[0]
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    for some in (None, mask):
        found = vectors.near(direction[None], wanted, some, every(vectors))
        assert set(found.tolist()) == exact(
            vectors, direction, min(wanted, count if some is None else int(some.sum())), some
        )
        assert found.tolist() == sorted(found.tolist())


def test_several_directions_find_the_best_of_each_together() -> None:
    vectors = vectors_of(photos(200))
    directions = photos(3, seed=1)
    found = vectors.near(directions, 7, None, every(vectors))
    assert set(found.tolist()) == set().union(*(exact(vectors, one, 7) for one in directions))


def test_a_cell_may_be_empty_and_a_gallery_too() -> None:
    values = photos(9).astype(np.float16)
    sizes, centroids = np.array([4, 0, 5]), photos(3, seed=2)
    vectors = Vectors(values, sizes, centroids)
    assert (vectors.rows_of(1).tolist(), vectors.rows_of(np.array([2, 1])).tolist()) == ([], [4, 5, 6, 7, 8])
    assert len(vectors.near(photos(1), 3, None, every(vectors))) == 3
    nothing = Vectors(values[:0], np.zeros(3, np.int64), centroids)
    assert (nothing.count, nothing.near(photos(1), 3, None, every(nothing)).tolist()) == (0, [])


def test_rows_that_are_not_shown_are_never_found() -> None:
    vectors = Vectors(photos(12).astype(np.float16), np.array([10]), photos(1))
    assert vectors.near(photos(1), 20, None, every(vectors)).max() == 9
    assert len(vectors.of()) == 10


def test_places_have_the_photos_that_are_shown_first_and_every_row_once(tmp_path: Path) -> None:
    ids, clusters, segments, rows = (np.array(column) for column in ([1, 2, 5], [1, 0, 0], [1, 0, 1], [1, 0, 0]))
    places = Places.of_photos(ids, clusters, segments, rows, [3, 2], 2)
    assert places.table().tolist() == [[2, 0, 0, 0], [5, 0, 1, 0], [1, 1, 1, 1], [0, 2, 0, 1], [0, 2, 0, 2]]
    assert places.of_segment(0).tolist() == [0, 3, 4]
    places.write(tmp_path)
    opened = Places.open(tmp_path, 5)
    assert np.array_equal(opened.table(), places.table())
    assert opened.fit(np.array([3, 2]), 2, 3)
    assert not opened.fit(np.array([3, 2]), 1, 3)
    assert not opened.fit(np.array([3, 2]), 2, 4)
    with pytest.raises(IndexRefused, match="not the array that the manifest says"):
        Places.open(tmp_path, 6)
