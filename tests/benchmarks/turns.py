"""Ways that take turns, so that whatever else the machine does strikes all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import torch

from tests.benchmarks.circumstances import synchronised


def least_seconds(runs: Sequence[Callable[[], object]], rounds: int, device: torch.device) -> Iterator[list[float]]:
    """After each round, in which every one runs once on ``device``, the least seconds that each has taken so far."""
    least = [float("inf")] * len(runs)
    for _ in range(rounds):
        for index, run in enumerate(runs):
            start = time.perf_counter()
            run()
            synchronised(device)
            least[index] = min(least[index], time.perf_counter() - start)
        yield list(least)
