"""Soak: copies of shards are killed at random moments, and no answer is wrong."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from indexer.distributed import connected
from service.settings import Settings
from tests.benchmarks.results import Soak, soak
from tests.patience import wait_until
from tests.ray_cluster import ray_cluster_of
from tests.service.sharding.served_on_ray import OnRay, served_on_ray

# What the soak writes down.
SOAKED = (
    "Copies of two shards killed at random moments on a Ray cluster, while searches follow each other: "
    "half of them with one copy of each shard, half with two. With one, answers without the shard say so; "
    "with two, nothing is missing. What is found is ranked as before"
)

KILLS = 20
# By the number of copies: a shard that is gone is soon left out; one with a second copy is waited for.
SECONDS = {1: 5.0, 2: 100.0}
# Seconds from one look at the copies to the next, and until one has to be there again: what searches has a processor.
_LOOK, _PATIENCE = 0.5, 20 * 60


@pytest.mark.soak
def test_copies_that_are_killed_at_random_make_no_answer_wrong(
    settings: Settings, shard_folders: list[Path], sketch: bytes, tmp_path: Path
) -> None:
    """With one copy of each shard, answers may be without it, and say so; with two, nothing is missing.

    What is found is ranked as before.
    """
    with ray_cluster_of(3) as cluster, connected(cluster.address), soak(SOAKED) as run:
        for copies, seconds in SECONDS.items():
            log = tmp_path / f"{copies}.log"
            with served_on_ray(settings, shard_folders, cluster, log, copies=copies, seconds=seconds) as on_ray:
                answers = _searched(on_ray, sketch, copies, run)
            incomplete = sum(not answer["complete"] for answer in answers)
            print(f"{copies} copies of each shard: {len(answers)} answers, {incomplete} of them incomplete")
            assert bool(incomplete) == (copies == 1)


def _searched(on_ray: OnRay, sketch: bytes, copies: int, run: Soak) -> list[dict[str, Any]]:
    """Search without a pause while copies are killed, and a moment longer. Returns the answers, all of them checked."""
    wait_until(lambda: on_ray.copies() == [copies, copies], "not all copies have started", _PATIENCE)
    whole = on_ray.search(sketch)
    assert whole["complete"]
    order = [hit["id"] for hit in whole["results"]]
    answers: list[dict[str, Any]] = []
    over, ended = threading.Event(), threading.Event()

    def search() -> None:
        try:
            while not over.is_set():
                answers.append(on_ray.search(sketch))
                _check(answers[-1], order)
        finally:
            ended.set()

    with ThreadPoolExecutor(1) as searching:
        searched = searching.submit(search)
        try:
            for _ in range(KILLS):
                assert on_ray.kill(random.randrange(len(on_ray.folders))) == 1
                run.times += 1
                # Of two copies, one is killed only once the one before is there again.
                wait_until(
                    lambda: ended.wait(_LOOK) or (on_ray.copies() == [copies, copies] and on_ray.answering() == 2),
                    "a copy did not come back",
                    _PATIENCE,
                )
                if ended.is_set():
                    break
        finally:
            over.set()
        searched.result()
    wait_until(lambda: on_ray.search(sketch)["results"] == whole["results"], "not all is found again")
    return answers


def _check(found: dict[str, Any], order: list[int]) -> None:
    ids = [hit["id"] for hit in found["results"]]
    assert ids == [photo for photo in order if photo in set(ids)]
    assert (len(ids) == len(order)) == found["complete"] == (not found.get("missing_shards"))
