from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.distributed.builds import place_clusters


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_cluster_is_in_one_shard_and_every_shard_has_one(data: st.DataObject) -> None:
    sizes = np.array(data.draw(st.lists(st.integers(1, 50), min_size=1, max_size=30)))
    shards = data.draw(st.integers(1, len(sizes)))
    # Few distinct points, so that some clusters lie in the same place.
    centroids = np.random.default_rng(len(sizes)).integers(0, 3, (len(sizes), 4)).astype(np.float32)
    placed = place_clusters(centroids, sizes, shards)
    assert set(placed.tolist()) == set(range(shards))
    assert len(placed) == len(sizes)


def test_shards_of_many_clusters_are_nearly_equal() -> None:
    generator = np.random.default_rng(0)
    sizes = generator.integers(50, 150, 400)
    placed = place_clusters(generator.normal(size=(400, 8)).astype(np.float32), sizes, 7)
    photos = np.bincount(placed, weights=sizes)
    assert photos.max() < 1.2 * photos.mean()
    assert photos.min() > 0.6 * photos.mean()


def test_neighbours_are_in_one_shard() -> None:
    groups = np.repeat(np.eye(4, dtype=np.float32), 10, axis=0)
    noise = 0.01 * np.random.default_rng(0).normal(size=groups.shape).astype(np.float32)
    placed = place_clusters(groups + noise, np.full(40, 5), 4)
    assert [set(placed[start : start + 10].tolist()) for start in range(0, 40, 10)] == [
        {shard} for shard in placed[::10].tolist()
    ]
