"""python -m tests.indexer.distributed.killed_nodes OUT COUNT KILLS: builds whose machines are killed at any moment.

COUNT photos are built into three shards by three nodes of a cluster on this machine, of which all but the head are
killed, one at a time, and replaced. A build may be over before many of them are: it is made anew, from the start, until
KILLS nodes were killed in all. Each time the shards have to hold what an undisturbed build of one index holds.
"""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import torch

import model
from indexer import build, verify
from indexer.building import Progress
from indexer.building.progress import Phase
from indexer.distributed import ShardsReport, build_shards
from indexer.store import read_shards
from tests.indexer.distributed.same import check_same
from tests.indexer.distributed.workers import connection
from tests.indexer.galleries import save_photos
from tests.networks import tiny_checkpoint
from tests.ray_cluster import add_small_node, ray_cluster_of

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

_SHARDS = 3
_SLICE = 40
# Seconds from one look at the progress to the next.
_LOOK = 0.02


class _Watched(Progress):
    """Progress that says how much of the whole build is done, as a share: nine tenths of it are for encoding."""

    def __init__(self) -> None:
        super().__init__()
        self.share = 0.0
        self._phase_now: Phase = "reading"
        self._of_phase = (0, 0)

    def start(self, phase: Phase, total: int = 0) -> None:
        super().start(phase, total)
        self._phase_now, self._of_phase = phase, (0, total)
        self._look()

    def advance(self, done: int = 1, bad: int = 0) -> None:
        super().advance(done, bad)
        before, total = self._of_phase
        self._of_phase = (before + done, total)
        self._look()

    def _look(self) -> None:
        done, total = self._of_phase
        if self._phase_now == "encoding":
            self.share = 0.9 * done / max(1, total)
        elif self._phase_now in ("clustering", "writing"):
            self.share = 0.9 + 0.1 * done / max(1, total) * (self._phase_now == "writing")


def kill_nodes(cluster: Cluster, progress: _Watched, kills: int, ended: threading.Event, random: Random) -> int:
    """Kill a node at each of ``kills`` random shares of the build, and add another. Returns how many were killed."""
    moments = sorted(random.random() for _ in range(kills))
    for number, moment in enumerate(moments):
        while progress.share < moment and not ended.wait(_LOOK):
            pass
        # At any moment within a slice.
        if ended.wait(random.random()):
            return number
        cluster.remove_node(random.choice(sorted(cluster.worker_nodes, key=id)), allow_graceful=False)
        add_small_node(cluster)
    return kills


def disturbed_builds(out: Path, count: int, kills: int) -> int:
    """Build, kill and compare until ``kills`` nodes were killed. Returns the number of builds.

    AssertionError: something is lost or wrong, or builds end before a node can be killed.
    """
    weights = tiny_checkpoint(out / "tiny.safetensors")
    photos = save_photos(out / "photos", count)
    build([photos], out / "index", model.load(weights, dtype=torch.float32), embedder="ret")
    made, killed, random = 0, 0, Random(kills)
    with ray_cluster_of(3) as cluster, connection(cluster.address):
        while killed < kills:
            assert made < 2 * kills, "builds are over before a node can be killed"
            shards = out / f"shards-{made}"
            killed += _disturbed(cluster, shards, photos, weights, kills - killed, random)
            check_same(shards, out / "index")
            for entry in read_shards(shards).shards:
                assert verify(shards / entry.folder) == []
            made += 1
    return made


def _disturbed(cluster: Cluster, shards: Path, photos: Path, weights: Path, kills: int, random: Random) -> int:
    """One build. Returns how many nodes were killed meanwhile, at most ``kills``."""
    progress, ended = _Watched(), threading.Event()

    def built() -> ShardsReport:
        try:
            return build_shards(
                [photos],
                shards,
                ray=cluster.address,
                shards=_SHARDS,
                weights=str(weights),
                device="cpu",
                embedder="ret",
                slice_files=_SLICE,
                progress=progress,
            )
        finally:
            ended.set()

    # Nodes can be added by the main thread only.
    with ThreadPoolExecutor(1) as builder:
        building = builder.submit(built)
        killed = kill_nodes(cluster, progress, kills, ended, random)
        assert building.result().bad == ()
    return killed


def main(out: Path, count: int, kills: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    print(f"{kills} nodes killed in {disturbed_builds(out, count, kills)} builds, nothing lost")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
