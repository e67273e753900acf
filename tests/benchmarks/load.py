"""A server with patient clients, and under half, all and twice the load that it can bear; `make bench`.

First some clients each ask again as soon as they are answered; what four of them get is the capacity. Then searches
come at random moments, at rates that are shares of that. Clients and server share this machine, so all times are of
both.
"""

from __future__ import annotations

# isort: off
# Before all others: it replaces parts of the standard library, which must not be in use by then.
from locust import FastHttpUser, task
from locust.env import Environment

# isort: on
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

from tests.benchmarks.circumstances import Call, circumstances_at
from tests.benchmarks.command import Command
from tests.benchmarks.load_result import EAGER, Answers, Clients, Level, Result, table
from tests.benchmarks.served_demo import demo

SECONDS, QUICK_SECONDS = 30.0, 1.0
# Together no more than fit the queue.
CLIENTS = (1, 4, 16)
SHARES = (0.5, 1.0, 2.0)
# More than can be in the queue, so that who waits for an answer does not keep the others from coming.
VISITORS = 60
SEED = 0


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

    def percentile(self, share: float) -> float | None:
        """Milliseconds, of those answered."""
        return round(float(np.percentile(self.answered, share)), 1) if self.answered else None


def visit(url: str, sketches: tuple[bytes, ...], visitors: int, rate: float | None, seconds: float) -> Answers:
    """Have visitors come for so long, and wait for the answers to those who have; ``rate``: of all of them together."""
    each = None if rate is None else rate / visitors
    kind = type("Visitors", (Visitor,), {"sketches": sketches, "rate": each, "abstract": False})
    environment = Environment(user_classes=[kind], host=url, stop_timeout=300)
    outcomes = Outcomes(environment)
    runner = environment.create_local_runner()
    before, begun = resident(url), time.monotonic()
    runner.start(visitors, spawn_rate=visitors)
    gevent.sleep(seconds)
    runner.stop()
    # Until the last of them has been answered.
    took = time.monotonic() - begun
    runner.quit()
    return Answers(
        answered=len(outcomes.answered),
        refused=outcomes.refused,
        failed=outcomes.failed,
        per_second=len(outcomes.answered) / took,
        p50_ms=outcomes.percentile(50),
        p95_ms=outcomes.percentile(95),
        p99_ms=outcomes.percentile(99),
        grown_mib=round(resident(url) - before, 1),
    )


def resident(url: str) -> float:
    """MiB of memory that the server's process has."""
    told = httpx.get(f"{url}/metrics").text.splitlines()
    (line,) = (line for line in told if line.startswith("process_resident_memory_bytes "))
    return float(line.split()[1]) / 2**20


def measure(url: str, sketches: tuple[bytes, ...], seconds: float, call: Call) -> Result:
    """Each of CLIENTS, and then each of SHARES."""
    info = httpx.get(f"{url}/info").json()
    visit(url, sketches, EAGER, None, min(seconds, 5.0))  # to warm up
    clients = [Clients(clients=n, answers=visit(url, sketches, n, None, seconds)) for n in CLIENTS]
    (capacity,) = (row.answers.per_second for row in clients if row.clients == EAGER)
    levels: list[Level] = []
    for share in SHARES:
        answers = visit(url, sketches, VISITORS, share * capacity, seconds)
        came = answers.answered + answers.refused + answers.failed
        levels.append(Level(share=share, offered=came / seconds, answers=answers))
    return Result(
        circumstances=circumstances_at(url, call),
        photos=info["index"]["photos"],
        queue=info["limits"]["queue"],
        seconds=seconds,
        capacity=capacity,
        clients=clients,
        levels=levels,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the table, write OUTPUT/load.json; 1 where a search failed."""
    command = Command("load", __doc__, device=False)
    command.add_argument("--photos", type=Path, help="photos to search instead of the sample gallery")
    options, call = command.begin(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with demo(folder, options.photos, options.weights) as url:
            drawn = sorted(folder.glob("samples/sketches/**/*.png")) or sorted(folder.glob("*.png"))
            sketches = tuple(file.read_bytes() for file in drawn)
            result = measure(url, sketches, QUICK_SECONDS if options.quick else SECONDS, call)
    document = options.output / "load.json"
    result.save(document)
    print(f"{table(result)}\n{document}")
    return int(result.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
