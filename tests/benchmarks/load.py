"""A server with patient clients, and under half, all and twice the load that it can bear; `make bench`.

First come four clients who search again as soon as they are answered: what they get is the capacity. Then searches
arrive at random moments, at rates that are shares of the capacity. Clients and server share this machine, so all times
are those of both.
"""

# isort: off
# Imported before all others: it replaces parts of the standard library, which nothing may use before.
from locust import FastHttpUser, task
from locust.env import Environment

# isort: on
import random
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import Any

import gevent  # type: ignore[import-untyped]
import httpx
import numpy as np

from sketch_search.model.matcher import KEPT
from tests.benchmarks.command import Command, by_server, demo, turned
from tests.benchmarks.results import Result, Row

SECONDS, QUICK_SECONDS = 30.0, 0.5
# Enough clients that one search always waits, and too few to fill the queue: what they get is the capacity.
EAGER = 4
SHARES = (0.5, 1.0, 2.0)
# More visitors than places in the queue, so that those who wait for an answer do not keep others from coming.
VISITORS = 60
# More sketches than a server keeps encoded.
TURNED = 4 * KEPT
SEED = 0


class Visitor(FastHttpUser):
    """Sends sketches.

    Attributes:
        rate: sketches a second, sent at random moments however long answers take; None sends one after the other, and
            comes back when a refusal says so.
    """

    abstract = True
    network_timeout = 300.0
    connection_timeout = 60.0
    sketches: Iterator[bytes] = iter(())
    rate: float | None = None
    chance = random.Random(SEED)

    def on_start(self) -> None:
        """Begin without a time at which the next search is due."""
        self._due: float | None = None
        self._pause = 0.0

    def wait_time(self) -> float:
        if self.rate is None or self._due is None:
            return self._pause
        self._due += self.chance.expovariate(self.rate)
        return max(0.0, self._due - time.monotonic())

    @task
    def search(self) -> None:
        """Send the next sketch. The first call sends nothing, because all visitors begin at the same moment."""
        if self._due is None:
            self._due = time.monotonic()
            return
        sketch: Any = next(self.sketches)  # bytes will do, though its type says another
        answer: Any = self.client.post("/search", data=sketch)
        self._pause = float((answer.headers or {}).get("retry-after", 0))


class Outcomes:
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
        """This percentile of the milliseconds of answered searches; None where none was answered."""
        return round(float(np.percentile(self.answered, share)), 1) if self.answered else None


def visit(url: str, sketches: tuple[bytes, ...], visitors: int, rate: float | None, seconds: float) -> Row:
    """Let visitors come for ``seconds``, and wait until all of them are answered; count what became of their searches.

    429 is a refusal with Retry-After; failed is any other answer, or none. Times go from the first byte sent to the
    last byte read. ``rate``: searches a second of all visitors together.
    """
    each = None if rate is None else rate / visitors
    kind = type("Visitors", (Visitor,), {"sketches": cycle(turned(sketches, TURNED)), "rate": each, "abstract": False})
    environment = Environment(user_classes=[kind], host=url, stop_timeout=300)
    outcomes = Outcomes(environment)
    runner = environment.create_local_runner()
    before, begun = resident(url), time.monotonic()
    runner.start(visitors, spawn_rate=visitors)
    gevent.sleep(seconds)
    runner.stop()
    # The time until the last of them was answered.
    took = time.monotonic() - begun
    runner.quit()
    return {
        "answered": len(outcomes.answered),
        "answered a second": len(outcomes.answered) / took,
        "429": outcomes.refused,
        "failed": outcomes.failed,
        **{f"p{share} (ms)": outcomes.percentile(share) for share in (50, 95, 99)},
        "memory grew by (MiB)": round(resident(url) - before, 1),
    }


def resident(url: str) -> float:
    told = httpx.get(f"{url}/metrics").text.splitlines()
    (line,) = (line for line in told if line.startswith("process_resident_memory_bytes "))
    return float(line.split()[1]) / 2**20


def measure(command: Command, url: str, sketches: tuple[bytes, ...], seconds: float) -> Result:
    info = httpx.get(f"{url}/info").json()
    visit(url, sketches, EAGER, None, min(seconds, 5.0))  # to warm up
    patient = visit(url, sketches, EAGER, None, seconds)
    capacity = float(patient["answered a second"] or 0)
    levels: list[Row] = [{"load": f"{EAGER} clients, one search after the other", "came a second": capacity, **patient}]
    for share in SHARES:
        answers = visit(url, sketches, VISITORS, share * capacity, seconds)
        came = sum(int(answers[name] or 0) for name in ("answered", "429", "failed"))
        levels.append({"load": f"{share}x the capacity", "came a second": came / seconds, **answers})
    said = f"{info['index']['photos']:,} photos, queue of {info['limits']['queue']}, {seconds:.0f} s a row."
    return command.result("Overload", by_server(url), said=said, rows=levels)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the table, write OUTPUT/overload.json; 1 where a search failed."""
    command = Command("load", __doc__, photos=True)
    options = command.begin(arguments)
    with demo(options) as (url, sketches):
        result = measure(command, url, sketches, QUICK_SECONDS if options.quick else SECONDS)
    command.save(result)
    return int(any(row["failed"] for row in result.rows))


if __name__ == "__main__":
    sys.exit(main())
