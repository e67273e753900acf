from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.results import soak
from tests.indexer.distributed.killed_nodes import disturbed_builds
from tests.requirements import need_ray

# What the soak writes down.
SOAKED = (
    "Nodes of a Ray cluster killed at random moments, while 5,000 photos are built into three shards. "
    "They hold what an undisturbed build of one index holds"
)

KILLS = 20


@pytest.mark.soak
def test_builds_of_5000_photos_whose_machines_are_killed_20_times_equal_an_undisturbed_one(tmp_path: Path) -> None:
    need_ray()
    with soak(SOAKED) as run:
        disturbed_builds(tmp_path, 5000, KILLS)
        run.times = KILLS
