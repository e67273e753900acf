"""What a server under load did. Not in ``load``, whose imports replace parts of the standard library."""

from __future__ import annotations

from pydantic import BaseModel

from tests.benchmarks.circumstances import BenchmarkResult

# Enough clients that one search always waits, and too few to fill the queue.
EAGER = 4


class Answers(BaseModel):
    """What became of the searches of one measurement.

    Attributes:
        answered: how many were answered with photos.
        refused: how many got 429 and Retry-After.
        failed: how many got anything else, or no answer.
        per_second: answered searches a second.
        p50_ms, p95_ms, p99_ms: milliseconds of answered searches, from the first byte sent to the last byte read; None
            where none was answered.
        grown_mib: how much more memory the server's process had afterwards, in MiB.
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
    """The answers to so many clients, each of which asks again as soon as it is answered or may come back."""

    clients: int
    answers: Answers


class Level(BaseModel):
    """The answers at one rate of arrivals.

    Attributes:
        share: the rate, as a share of the capacity.
        offered: searches a second that came.
    """

    share: float
    offered: float
    answers: Answers


class Result(BenchmarkResult):
    """One run.

    Attributes:
        capacity: searches a second that were answered to EAGER clients.
        seconds: how long each measurement took.
    """

    photos: int
    queue: int
    seconds: float
    capacity: float
    clients: list[Clients]
    levels: list[Level]

    @property
    def failed(self) -> int:
        """Failed searches of the whole run."""
        return sum(row.answers.failed for row in self.clients) + sum(row.answers.failed for row in self.levels)


def table(result: Result) -> str:
    """The result as a table for the terminal."""
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
