from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.store.clusters import (
    assign,
    default_clusters,
    mean_tokens,
    normalised,
)
from indexer.store.generation import live_generation
from indexer.store.location import IndexFolder
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


def test_a_gallery_of_more_than_twice_the_photos_gets_new_clusters_unless_their_number_was_asked_for(
    collection: Collection,
) -> None:
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
    collection.build()
    fresh = replace(collection, index=tmp_path / "fresh")
    fresh.build(clusters=2)
    updated, anew = (live_generation(IndexFolder(one.index)).read_means() for one in (collection, fresh))
    assert np.array_equal(updated, anew)
