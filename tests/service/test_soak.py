"""Many searches in a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.pictures import encoded
from tests.service.conftest import draw_sketch

WARM_UP = 50
SEARCHES = 200
# Far below what 200 kept uploads, pictures or answers would take, above what an allocator keeps for itself.
GROWTH = 8 * 1024 * 1024

_STATUS = Path("/proc/self/status")


@pytest.mark.soak
@pytest.mark.skipif(not _STATUS.exists(), reason="resident memory is read from /proc")
def test_searches_in_a_row_answer_alike_and_leave_memory_flat(http: httpx.Client) -> None:
    sketches = [encoded(draw_sketch(seed).resize((512, 512))) for seed in range(4)]
    first = [_results(http, sketch) for sketch in sketches]
    for number in range(WARM_UP):
        _results(http, sketches[number % len(sketches)])
    before = _resident()
    for number in range(SEARCHES):
        which = number % len(sketches)
        assert _results(http, sketches[which]) == first[which]
    assert _resident() - before < GROWTH


def _results(http: httpx.Client, sketch: bytes) -> Any:
    answer = http.post("/search", content=sketch)
    answer.raise_for_status()
    return answer.json()["results"]


def _resident() -> int:
    """Bytes; the server runs in this process."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024
