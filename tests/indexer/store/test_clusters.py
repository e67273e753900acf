from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer import read_summary, remove
from indexer.store.clusters import (
    Drift,
    assign,
    default_clusters,
    mean_tokens,
    normalised,
)
from indexer.store.rows import Refs, RowArrays, Rows, quantised
from tests.indexer.galleries import Collection, clustered, refs_to, save_photos

CELLS = 16


def photos(seed: int, count: int, kept: int, width: int = 3) -> tuple[Rows, Refs, RowArrays]:
    """Photos in a segment and in a journal, every one with ``kept`` of 16 cells; and all of them in one piece."""
    draw = np.random.default_rng(seed)
    tokens = draw.normal(size=(count, kept + 1, width)).astype(np.float16)
    positions = np.stack([np.sort(draw.permutation(CELLS)[:kept]) for _ in range(count)]).astype(np.uint8)
    ret = draw.normal(size=(count, width)).astype(np.float32)
    half = count // 2
    steps, scales = quantised(tokens)
    vectors = normalised(ret).astype(np.float16)
    together = RowArrays({"vectors": vectors, "tokens": steps, "positions": positions, "scales": scales})
    rows = Rows({"s": together.take(slice(0, half)), "journal": together.take(slice(half, count))})
    refs = [*(("s", row) for row in range(half)), *(("journal", row) for row in range(count - half))]
    return rows, refs_to(*refs), together


def plain_mean(arrays: RowArrays, kept: int) -> tuple[list[int], list[npt.NDArray[np.float64]]]:
    """Computes the mean tokens by their definition, cell by cell."""
    found: dict[int, list[npt.NDArray[np.float64]]] = {}
    everything = slice(None)
    for photo, cells in zip(arrays.features(everything), arrays.patches(everything), strict=True):
        for token, cell in zip(photo[1:], cells.tolist(), strict=True):
            found.setdefault(cell, []).append(token.astype(np.float64))
    most = sorted(found, key=lambda cell: (-len(found[cell]), cell))[:kept]
    return sorted(most), [np.mean(found[cell], axis=0) for cell in sorted(most)]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 9), kept=st.integers(1, CELLS))
def test_a_centroid_of_pruned_tokens_is_the_mean_by_cell_where_most_photos_kept_one(
    seed: int, count: int, kept: int
) -> None:
    rows, refs, arrays = photos(seed, count, kept)
    found = mean_tokens(rows, refs)
    assert found is not None
    cells, means = found
    expected_cells, expected = plain_mean(arrays, kept)
    assert cells.tolist() == expected_cells
    np.testing.assert_allclose(means[1:], expected, atol=1e-5)


def embeddings(count: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return normalised(np.random.default_rng(seed).normal(size=(count, 8)))


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 60), data=st.data())
def test_every_photo_is_in_one_cluster_and_no_cluster_is_empty(count: int, data: st.DataObject) -> None:
    wanted = data.draw(st.integers(1, count))
    # Few distinct points, so that some clusters must end empty.
    points = embeddings(count)[np.random.default_rng(count).integers(0, max(1, count // 2), count)]
    centroids, assignment = clustered(points, wanted)
    assert sorted(set(assignment.tolist())) == list(range(len(centroids)))
    assert len(assignment) == count
    assert len(centroids) <= wanted
    assert np.array_equal(assign(points, centroids), assignment)


def test_the_number_of_clusters_is_about_the_square_root() -> None:
    assert [default_clusters(photos) for photos in (1, 2, 12, 12_500)] == [1, 1, 3, 112]


SAME, RECLUSTER = "the same photos are shown now", "; run `sketch-search index build --recluster`"


@pytest.mark.parametrize(
    ("drift", "told"),
    [
        (Drift(100, 0.5, 100, 0.5, automatic=True), SAME),
        (
            Drift(100, 0.5, 201, 0.5, automatic=True),
            "now there are 201, and the clusters fit them as well; there should be more clusters for so many"
            + RECLUSTER,
        ),
        (Drift(100, 0.5, 201, 0.5, automatic=False), "now there are 201, and the clusters fit them as well"),
        (
            Drift(100, 0.5, 100, 0.45, automatic=True),
            "now there are others, on average 10 % nearer to the middle of their cluster",
        ),
        (
            Drift(100, 0.5, 110, 0.56, automatic=False),
            "now there are 110, on average 12 % farther from the middle of their cluster" + RECLUSTER,
        ),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_drift_is_told_in_a_plain_sentence_with_a_remedy_beyond_twice_the_photos_or_a_tenth_more_distance(
    drift: Drift, told: str
) -> None:
    assert drift.describe() == f"the clusters were made for 100 photos; {told}"
    assert drift.excessive is told.endswith(RECLUSTER)


def test_drift_from_clusters_of_one_photo_each_is_excessive_as_soon_as_there_is_any() -> None:
    assert not Drift(5, 0.0, 5, 0.0, automatic=False).excessive
    assert Drift(5, 0.0, 6, 0.1, automatic=False).excessive


def test_a_gallery_that_grows_drifts_until_it_is_clustered_anew(collection: Collection) -> None:
    first = collection.build().drift
    assert first is not None
    assert (first.clustered, first.photos, first.automatic, first.excessive) == (12, 12, True, False)
    assert first.distance == first.distance_now > 0
    save_photos(collection.photos, 18, start=20)
    grown = collection.build().drift
    assert grown is not None
    assert (grown.clustered, grown.distance, grown.photos, grown.excessive) == (12, first.distance, 30, True)
    assert grown.distance_now != grown.distance
    assert read_summary(collection.index).drift == grown
    remove([], collection.index, ids=[1, 2])
    drift = read_summary(collection.index).drift
    assert drift is not None
    assert (drift.clustered, drift.photos, drift.distance_now != grown.distance_now) == (12, 28, True)
    report = collection.build(recluster=True)
    assert (report.encoded, report.clusters) == (0, 5)
    assert report.drift is not None
    assert (report.drift.clustered, report.drift.excessive) == (28, False)
