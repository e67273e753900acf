"""What searches of shards by Ray take, beside those of one index. Not in ``sharded``, which needs Ray."""

from __future__ import annotations

from pydantic import BaseModel

from tests.benchmarks.circumstances import BenchmarkResult

# Stages of a search as the service times them, and all of them.
STAGES = ("prepare", "encode", "clusters", "photos", "diffusion", "total")


class Times(BaseModel):
    """Searches one after the other.

    Attributes:
        p50_ms, p95_ms: milliseconds from the first byte sent to the last byte read.
        stages_ms: the median of each of STAGES.
    """

    p50_ms: float
    p95_ms: float
    stages_ms: dict[str, float]


class Side(BaseModel):
    """One of two servers that take turns.

    Attributes:
        alone: its searches while nobody else asks.
        per_second: answers a second to several clients, each of which asks again as soon as it is answered.
    """

    alone: Times
    per_second: float


class Row(BaseModel):
    """A gallery in so many shards by Ray, beside the same gallery as one index without Ray.

    Attributes:
        threads: of each copy of a shard, of the encoder and of the server that asks them.
        difference: the greatest difference between the scores of both at the same rank.
    """

    shards: int
    threads: int
    plain: Side
    by_ray: Side
    difference: float

    @property
    def more_ms(self) -> float:
        """How much longer the median search takes by Ray."""
        return self.by_ray.alone.p50_ms - self.plain.alone.p50_ms

    @property
    def time_ratio(self) -> float:
        """The median search by Ray, as a multiple of the one without."""
        return self.by_ray.alone.p50_ms / self.plain.alone.p50_ms

    @property
    def rate_ratio(self) -> float:
        """Answers a second to several clients by Ray, as a multiple of those without."""
        return self.by_ray.per_second / self.plain.per_second


class Result(BenchmarkResult):
    """One run, as far as it is.

    Attributes:
        photos: of the gallery. cores: of the machine, which all processes share.
        queries: searches one after the other, of each server.
        clients: that ask at once, for so many ``seconds`` in a turn, of which each server has ``turns``.
        without_ray: the plain server while no Ray runs; its circumstances are otherwise those of ``Row.plain``.
    """

    photos: int
    cores: int
    queries: int
    clients: int
    seconds: float
    turns: int
    without_ray: Times
    rows: list[Row]

    @property
    def ray_ms(self) -> float | None:
        """What Ray itself costs the median search: one shard by Ray less the plain server. None: not measured."""
        return next((row.more_ms for row in self.rows if row.shards == 1), None)


def table(result: Result) -> str:
    """The result as a table for the terminal."""
    lines = [
        f"{result.photos:,} photos, {result.queries} searches, {result.clients} clients, {result.cores} cores; "
        f"without Ray beside it p50 {result.without_ray.p50_ms:.1f} ms",
        f"{'':<22}{'threads':>8}{'p50 ms':>9}{'p95 ms':>9}{'times':>7}{'a second':>10}{'times':>7}  "
        + "".join(f"{stage:>10}" for stage in STAGES),
    ]
    for row in result.rows:
        sides = (
            ("plain", result.cores, row.plain, 1.0, 1.0),
            (f"{row.shards} by Ray", row.threads, row.by_ray, row.time_ratio, row.rate_ratio),
        )
        for name, threads, side, time_ratio, rate_ratio in sides:
            alone = side.alone
            lines.append(
                f"{name:<22}{threads:>8}{alone.p50_ms:>9.1f}{alone.p95_ms:>9.1f}{time_ratio:>7.2f}"
                f"{side.per_second:>10.2f}{rate_ratio:>7.2f}  "
                + "".join(f"{alone.stages_ms[stage]:>10.1f}" for stage in STAGES)
            )
        lines.append(f"{'':<22}scores differ by at most {row.difference:.2g}")
    return "\n".join(lines)
