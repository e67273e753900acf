"""What a server under load did; apart from its measurement, which replaces parts of the standard library."""

from __future__ import annotations

from pydantic import BaseModel

from tests.benchmarks.circumstances import Measurement

# Enough that one search always waits, too few for the queue to be full.
EAGER = 4


class Answers(BaseModel):
    """What became of the searches of one measurement.

    Attributes:
        answered, refused, failed: how many were answered with photos, with 429 and Retry-After, with anything else or
            not at all.
        per_second: answered. p50_ms, p95_ms, p99_ms: of those answered, from the first byte sent to the last one read;
            None where there was none. grown_mib: how much more memory the server's process had afterwards.
    """

    answered: int
    refused: int
    failed: int
    per_second: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    grown_mib: float


class Clients(BaseModel):
    """So many of them, who each ask again as soon as they are answered."""

    clients: int
    answers: Answers


class Level(BaseModel):
    """One rate of arrivals. share: of the capacity. offered: searches a second that came."""

    share: float
    offered: float
    answers: Answers


class Result(Measurement):
    """One run; capacity: searches a second that EAGER clients were answered. ``seconds``: of each measurement."""

    photos: int
    queue: int
    seconds: float
    capacity: float
    clients: list[Clients]
    levels: list[Level]

    @property
    def failed(self) -> int:
        """Searches of all of them."""
        return sum(row.answers.failed for row in self.clients) + sum(row.answers.failed for row in self.levels)


def table(result: Result) -> str:
    """For people."""
    named = [(f"{row.clients} clients", "", row.answers) for row in result.clients]
    named += [(f"load {level.share}", f"{level.offered:.2f}", level.answers) for level in result.levels]
    lines = [
        f"{result.circumstances.network}, {result.photos} photos, queue {result.queue}: "
        f"{result.capacity:.2f} searches a second",
        f"{'':<12}{'offered/s':>10}{'answered/s':>12}{'answered':>10}{'429':>7}{'failed':>8}"
        f"{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'MiB':>7}",
    ]
    lines += [
        f"{name:<12}{offered:>10}{answers.per_second:>12.2f}{answers.answered:>10}{answers.refused:>7}"
        f"{answers.failed:>8}{_number(answers.p50_ms):>9}{_number(answers.p95_ms):>9}{_number(answers.p99_ms):>9}"
        f"{answers.grown_mib:>7}"
        for name, offered, answers in named
    ]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
