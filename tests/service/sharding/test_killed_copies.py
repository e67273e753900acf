"""Soak: copies of shards are killed at random moments, and no answer is wrong."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from service.settings import Settings
from tests.patience import wait_until
from tests.ray_cluster import ray_cluster_of
from tests.service.sharding.served_on_ray import OnRay, served_on_ray

KILLS = 20


@pytest.mark.soak
@pytest.mark.parametrize("copies", [1, 2])
def test_copies_that_are_killed_at_random_make_no_answer_wrong(
    copies: int, settings: Settings, shard_folders: list[Path], sketch: bytes, tmp_path: Path
) -> None:
    """With one copy of each shard answers may be without it, and say so. Whatever is left is ranked as before."""
    with (
        ray_cluster_of(3) as cluster,
        served_on_ray(settings, shard_folders, cluster, tmp_path / "serve.log", copies=copies, seconds=5) as on_ray,
    ):
        whole = on_ray.search(sketch)
        assert whole["complete"]
        order = [hit["id"] for hit in whole["results"]]
        killed = threading.Event()

        def kill() -> None:
            for _ in range(KILLS):
                # With copies, one may be killed only once the one before is there again.
                wait_until(lambda: on_ray.kill(random.randrange(2)), "no shard has a copy")
                wait_until(lambda: on_ray.answering() == 2, "a shard did not come back")
            killed.set()

        killing = threading.Thread(target=kill, daemon=True)
        killing.start()
        answers = 0
        while killing.is_alive():
            _check(on_ray, sketch, order)
            answers += 1
        assert killed.is_set()
        assert answers
        wait_until(lambda: on_ray.search(sketch)["results"] == whole["results"], "not all is found again")


def _check(on_ray: OnRay, sketch: bytes, order: list[int]) -> None:
    found = on_ray.search(sketch)
    ids = [hit["id"] for hit in found["results"]]
    assert ids == [photo for photo in order if photo in set(ids)]
    assert (len(ids) == len(order)) == found["complete"] == (not found.get("missing_shards"))
