"""Timing of ways that take turns, so that other work of the machine slows all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import torch

from tests.benchmarks.circumstances import synchronised


def least_seconds(runs: Sequence[Callable[[], object]], rounds: int, device: torch.device) -> Iterator[list[float]]:
    """Run each of ``runs`` once in every round, on ``device``.

    Yields after each round the least seconds that each of them has taken so far.
    """
    least = [float("inf")] * len(runs)
    for _ in range(rounds):
        for index, run in enumerate(runs):
            start = time.perf_counter()
            run()
            synchronised(device)
            least[index] = min(least[index], time.perf_counter() - start)
        yield list(least)
