from __future__ import annotations

from pathlib import Path

import pytest

from tests.indexer.distributed.killed_nodes import disturbed_builds
from tests.requirements import need_ray
from tests.soak_report import noted

KILLS = 20


@pytest.mark.soak
def test_builds_of_5000_photos_whose_machines_are_killed_20_times_equal_an_undisturbed_one(tmp_path: Path) -> None:
    need_ray()
    with noted("lost machines") as run:
        disturbed_builds(tmp_path, 5000, KILLS)
        run.made = KILLS
