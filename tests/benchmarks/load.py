"""A server under half, all and twice the load that it can bear; `make bench`.

It is measured first how many searches a second are answered when there is always one waiting. Then searches come at
random moments, at rates that are shares of that. Clients and server share this machine, so all times are of both.
"""

from __future__ import annotations

# isort: off
# Before all others: it replaces parts of the standard library, which must not be in use by then.
from locust import FastHttpUser, task
from locust.env import Environment

# isort: on
import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gevent  # type: ignore[import-untyped]
import httpx
import numpy as np
from pydantic import BaseModel

from tests.benchmarks.served_demo import demo

SHARES = (0.5, 1.0, 2.0)
# Enough that one always waits, too few for the queue to be full.
EAGER = 4
# More than can be in the queue, so that who waits for an answer does not keep the others from coming.
VISITORS = 60
SEED = 0


class Level(BaseModel):
    """One rate of arrivals.

    Attributes:
        share: of the capacity. offered: searches a second that came. answered, refused, failed: how many were answered
            with photos, with 429 and Retry-After, with anything else or not at all.
        per_second: answered. p50_ms, p95_ms, p99_ms: of those answered, from the first byte sent to the last one read;
            None where there was none. grown_mib: how much more memory the server's process had afterwards.
    """

    share: float
    offered: float
    answered: int
    refused: int
    failed: int
    per_second: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    grown_mib: float


class Result(BaseModel):
    """One run; capacity: searches a second that are answered when one always waits."""

    network: str
    photos: int
    queue: int
    seconds: float
    capacity: float
    levels: list[Level]


class Visitor(FastHttpUser):
    """Sends sketches.

    Attributes:
        rate: how many a second, at random moments, however long the answers take; None for one after the other.
    """

    abstract = True
    network_timeout = 300.0
    connection_timeout = 60.0
    sketches: tuple[bytes, ...] = ()
    rate: float | None = None
    chance = random.Random(SEED)

    def on_start(self) -> None:
        """Has done nothing yet."""
        self._due: float | None = None

    def wait_time(self) -> float:
        """Seconds until the next."""
        if self.rate is None or self._due is None:
            return 0.0
        self._due += self.chance.expovariate(self.rate)
        return max(0.0, self._due - time.monotonic())

    @task
    def search(self) -> None:
        """One search, with any of the sketches; the first time nothing, since all visitors begin at once."""
        if self._due is None:
            self._due = time.monotonic()
            return
        self.client.post("/search", data=self.chance.choice(self.sketches))  # type: ignore[arg-type]  # bytes will do


class Outcomes:
    """What became of the searches of one environment."""

    def __init__(self, environment: Environment) -> None:
        self.answered: list[float] = []
        self.refused = 0
        self.failed = 0
        environment.events.request.add_listener(self._note)  # type: ignore[no-untyped-call]

    def _note(self, response_time: float, response: Any, **_: object) -> None:
        status = getattr(response, "status_code", 0)
        if status == 200:
            self.answered.append(response_time)
        elif status == 429 and "retry-after" in response.headers:
            self.refused += 1
        else:
            self.failed += 1

    @property
    def made(self) -> int:
        """All of them."""
        return len(self.answered) + self.refused + self.failed

    def percentile(self, share: float) -> float | None:
        """Milliseconds, of those answered."""
        return round(float(np.percentile(self.answered, share)), 1) if self.answered else None


def visit(url: str, sketches: tuple[bytes, ...], visitors: int, rate: float | None, seconds: float) -> Outcomes:
    """Have visitors come for so long, and wait for the answers to those who have; ``rate``: of all of them together."""
    each = None if rate is None else rate / visitors
    kind = type("Visitors", (Visitor,), {"sketches": sketches, "rate": each, "abstract": False})
    environment = Environment(user_classes=[kind], host=url, stop_timeout=300)
    outcomes = Outcomes(environment)
    runner = environment.create_local_runner()
    runner.start(visitors, spawn_rate=visitors)
    gevent.sleep(seconds)
    runner.stop()
    runner.quit()
    return outcomes


def resident(url: str) -> float:
    """MiB of memory that the server's process has."""
    told = httpx.get(f"{url}/metrics").text.splitlines()
    (line,) = (line for line in told if line.startswith("process_resident_memory_bytes "))
    return float(line.split()[1]) / 2**20


def measure(url: str, sketches: tuple[bytes, ...], seconds: float) -> Result:
    """Capacity, and then each of SHARES."""
    info = httpx.get(f"{url}/info").json()
    visit(url, sketches, EAGER, None, min(seconds, 5.0))  # to warm up
    begun = time.monotonic()
    eager = visit(url, sketches, EAGER, None, seconds)
    capacity = len(eager.answered) / (time.monotonic() - begun)
    levels: list[Level] = []
    for share in SHARES:
        before, begun = resident(url), time.monotonic()
        outcomes = visit(url, sketches, VISITORS, share * capacity, seconds)
        # Until the last of them has been answered.
        took = time.monotonic() - begun
        level = Level(
            share=share,
            offered=outcomes.made / seconds,
            answered=len(outcomes.answered),
            refused=outcomes.refused,
            failed=outcomes.failed,
            per_second=len(outcomes.answered) / took,
            p50_ms=outcomes.percentile(50),
            p95_ms=outcomes.percentile(95),
            p99_ms=outcomes.percentile(99),
            grown_mib=round(resident(url) - before, 1),
        )
        levels.append(level)
    return Result(
        network=info["model"]["name"],
        photos=info["index"]["photos"],
        queue=info["limits"]["queue"],
        seconds=seconds,
        capacity=capacity,
        levels=levels,
    )


def table(result: Result) -> str:
    """For people."""
    lines = [
        f"{result.network}, {result.photos} photos, queue {result.queue}: {result.capacity:.2f} searches a second",
        f"{'load':>5}{'offered/s':>11}{'answered/s':>12}{'answered':>10}{'429':>7}{'failed':>8}"
        f"{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'MiB':>7}",
    ]
    lines += [
        f"{level.share:>5}{level.offered:>11.2f}{level.per_second:>12.2f}{level.answered:>10}{level.refused:>7}"
        f"{level.failed:>8}{_number(level.p50_ms):>9}{_number(level.p95_ms):>9}{_number(level.p99_ms):>9}"
        f"{level.grown_mib:>7}"
        for level in result.levels
    ]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the table, write OUTPUT/load.json; 1 where a search failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seconds", type=float, default=60, help="of each of the four measurements (60)")
    parser.add_argument("--photos", type=Path, help="photos to search instead of the sample gallery")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="checkpoint (SBIR_WEIGHTS, else the embedded one)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with demo(folder, options.photos, options.weights) as url:
            drawn = sorted(folder.glob("samples/sketches/**/*.png")) or sorted(folder.glob("*.png"))
            result = measure(url, tuple(file.read_bytes() for file in drawn), options.seconds)
    options.output.mkdir(parents=True, exist_ok=True)
    document = options.output / "load.json"
    document.write_text(json.dumps(result.model_dump(), indent=1) + "\n", encoding="utf-8")
    print(f"{table(result)}\n{document}")
    return int(any(level.failed for level in result.levels))


if __name__ == "__main__":
    sys.exit(main())
