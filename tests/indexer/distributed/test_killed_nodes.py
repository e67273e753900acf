from __future__ import annotations

from pathlib import Path

import pytest

from tests.indexer.distributed.killed_nodes import disturbed_build
from tests.requirements import need_ray
from tests.soak_report import noted


@pytest.mark.soak
def test_a_build_of_5000_photos_whose_machines_are_killed_20_times_equals_an_undisturbed_one(tmp_path: Path) -> None:
    need_ray()
    with noted("lost machines") as run:
        run.made = disturbed_build(tmp_path, 5000, 20)
        # The last moments may come when the build is over.
        assert run.made >= 15
