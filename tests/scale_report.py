"""The tables of docs/scale.md, computed by the formulas of ``tests.scale`` from what the benches have measured."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, TypeVar

from model.errors import ModelError
from model.network import preset
from service.commands.serving_shards import SEARCHES_AT_ONCE
from service.search.plan import RERANK
from tests import scale
from tests.benchmarks import indexing, large, sharded_result
from tests.benchmarks.circumstances import BenchmarkResult
from tests.benchmarks.report import ReportError, read
from tests.benchmarks.tables import foot
from tests.blocks import PageError, rewrite_page

GALLERIES = {"a million": 10**6, "a hundred million": 10**8, "a billion": 10**9}
GIGABITS = 10.0
#: The results that are needed, by the name of their part of docs/figures.md, and the command of each.
NEEDED = {
    name: f"python -m tests.benchmarks.{bench} --output build/bench"
    for name, bench in (("Large galleries", "large"), ("Shards", "sharded"), ("Indexing", "indexing"))
}
LARGE, SHARDS, INDEXING = NEEDED
BLOCK, WALLS = "Scale", "Walls"
UNKNOWN = "not measured"
WHOLE_BUILD, OF_PHONES = ", whole build", ", whole build of 12 MP JPEGs"
NONE = "none"
_MIB = 2.0**20
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")

Result = TypeVar("Result", bound=BenchmarkResult)
Figure: TypeAlias = Callable[[int], str]


class NotMeasuredError(Exception):
    """A result that a figure needs is not there."""


class Measured:
    """What the benches have measured. Where one that is needed has not run, NotMeasuredError is raised."""

    def __init__(self, results: Mapping[str, BenchmarkResult]) -> None:
        """results: by the name of their part."""
        self._results = results

    def _result(self, part: str, kind: type[Result]) -> Result:
        found = self._results.get(part)
        if not isinstance(found, kind):
            raise NotMeasuredError
        return found

    def shard(self) -> scale.Shard:
        """The largest gallery, and the one before it for what a photo takes on the disk. ModelError: see ``preset``."""
        result = self._result(LARGE, large.Result)
        if len(result.rows) < 2:
            raise NotMeasuredError
        small, row = sorted(result.rows, key=lambda one: one.photos)[-2:]
        return scale.Shard(
            photos=row.photos,
            clusters=row.clusters,
            width=preset(result.circumstances.network).width,
            photo_bytes=scale.photo_bytes((small.photos, small.disk_mib * _MIB), (row.photos, row.disk_mib * _MIB)),
            memory_bytes=row.searched_mib * _MIB,
            encode_ms=row.p50_ms["encode"],
            choose_ms=row.p50_ms["clusters"],
            score_ms=row.p50_ms["photos"],
            diffuse_ms=row.p50_ms["diffusion"],
        )

    def serving(self) -> scale.Serving:
        """What HTTP and Ray take, from the fewest and the most shards."""
        result = self._result(SHARDS, sharded_result.Result)
        rows = sorted(result.rows, key=lambda row: row.shards)
        if len(rows) < 2 or rows[0].shards != 1:
            raise NotMeasuredError
        one, many = rows[0], rows[-1]
        plain = one.plain.alone
        return scale.Serving(
            http_ms=plain.p50_ms - plain.stages_ms["total"],
            ray_ms=one.more_ms,
            # Encoding and diffusion take longer there only because processes share the cores.
            shard_ms=scale.further_shard_ms(_between(one.by_ray), _between(many.by_ray), many.shards),
        )

    def photos_a_second(self, kind: str) -> float:
        """Photos that one machine indexes in a second."""
        return self._build(kind).photos_per_second

    def building_mib(self) -> float:
        """Memory of a process that indexes."""
        peak = self._build(WHOLE_BUILD).peak_mib
        if peak is None:
            raise NotMeasuredError
        return peak

    def _build(self, kind: str) -> indexing.Row:
        for row in self._result(INDEXING, indexing.Result).rows:
            if row.name.endswith(kind):
                return row
        raise NotMeasuredError


def _between(side: sharded_result.Side) -> float:
    """Milliseconds of a query that are not spent on encoding and on diffusion."""
    stages = side.alone.stages_ms
    return side.alone.p50_ms - stages["encode"] - stages["diffusion"]


def main_table(measured: Measured, gigabits: float) -> str:
    """What galleries take: machines, disk, memory, hours and milliseconds."""
    shard, serving, rate = measured.shard, measured.serving, measured.photos_a_second

    def part_ms(name: str) -> Figure:
        def told(n: int) -> str:
            parts = scale.query_ms(n, shard(), serving(), gigabits)
            return _ms(parts[name]) if name in parts else NONE

        return told

    def rates(n: int) -> dict[str, float]:
        return scale.rates(n, shard(), serving(), gigabits)

    def build(kind: str, workers: Callable[[int], int]) -> Figure:
        return lambda n: _hours(scale.build_hours(n, rate(kind), workers(n)))

    def shards(n: int) -> int:
        return scale.shards(n, shard())

    rows: dict[str, Figure] = {
        "shards": lambda n: f"{shards(n):,}",
        "machines that search": lambda n: f"{scale.machines(n, shard()):,}",
        "index on disk": lambda n: _bytes(scale.disk(n, shard())),
        "of it on each machine": lambda n: _bytes(scale.disk(n, shard()) / shards(n)),
        "on each machine, while it is built again": lambda n: _bytes(
            scale.TIMES_ON_DISK * scale.disk(n, shard()) / shards(n)
        ),
        "memory of the process of a shard": lambda _: _bytes(shard().memory_bytes),
        "memory of the ingress, beside the network": lambda n: (
            _bytes(scale.ids_kept(n) + scale.clusters_kept(n, shard()) + scale.searches_kept(n))
            if shards(n) > 1
            else NONE
        ),
        "memory of a worker that builds": lambda _: _bytes(measured.building_mib() * _MIB),
        "memory of the driver of a build": lambda n: _bytes(scale.listed(n)),
        "building, small photos, by one machine": build(WHOLE_BUILD, lambda _: 1),
        "by as many machines as shards": build(WHOLE_BUILD, shards),
        "building, photos of 12 megapixels, by one machine": build(OF_PHONES, lambda _: 1),
        "the same, by as many machines as shards": build(OF_PHONES, shards),
        "a query alone": lambda n: _ms(sum(scale.query_ms(n, shard(), serving(), gigabits).values())),
        "- encode the sketch": lambda _: _ms(shard().encode_ms),
        "- choose photos by [Ret]": lambda _: _ms(shard().choose_ms),
        "- score": lambda _: _ms(shard().score_ms),
        "- diffuse": lambda _: _ms(shard().diffuse_ms),
        "- HTTP": lambda _: _ms(serving().http_ms),
        "- Ray itself": part_ms("Ray, with one shard"),
        "- what further shards add to the gather": part_ms("further shards"),
        f"- network of {gigabits:g} Gbit/s": part_ms("network"),
        "queries a second": lambda n: _rate(min(rates(n).values())),
        "what limits them: the next wall": lambda n: min(rates(n).items(), key=lambda one: one[1])[0],
        "all of this on GPUs": lambda _: UNKNOWN,
    }
    return _table(rows)


def walls_table(measured: Measured) -> str:
    """What grows with the gallery, where it has to be in one place."""
    shard = measured.shard

    def of_shards(size: Callable[[int], float]) -> Figure:
        return lambda n: _bytes(size(n)) if scale.shards(n, shard()) > 1 else NONE

    return _table(
        {
            "gather: what shards send the ingress for a query": of_shards(lambda n: scale.gathered(n, shard())),
            "the same, if rows and scores came first": of_shards(lambda n: scale.gathered_in_two(n, shard())),
            "token reads of a query, over all shards, at most": lambda _: (
                f"{_bytes(scale.tokens_read(shard()))} in {RERANK} places"
            ),
            "ids that the ingress keeps": of_shards(scale.ids_kept),
            "clusters that the ingress keeps": of_shards(lambda n: scale.clusters_kept(n, shard())),
            f"scores of {SEARCHES_AT_ONCE} searches at once": of_shards(scale.searches_kept),
            "list of files that the driver of a build keeps": lambda n: _bytes(scale.listed(n)),
            "ids given, of those there are": lambda n: f"{scale.ids_used(n):.2%}",
        }
    )


def missing(results: Mapping[str, BenchmarkResult]) -> str:
    """A sentence with the benches that have not run; empty where all have."""
    commands = [f"`{command}`" for name, command in NEEDED.items() if name not in results]
    return f"Not measured yet, so that figures are missing: {', '.join(commands)}." if commands else ""


def blocks(results: Mapping[str, BenchmarkResult], gigabits: float) -> dict[str, str]:
    """The text of each block. ModelError: the network that was measured is not known here."""
    measured, told = Measured(results), missing(results)
    sources = "\n".join(f"- {name}: {foot(results[name])}" for name in NEEDED if name in results)
    try:
        shard = measured.shard()
        said = (
            f"A shard has {shard.photos:,} photos, as the largest gallery that was measured. "
            f"Each photo takes {_bytes(shard.photo_bytes)} on the disk."
        )
    except NotMeasuredError:
        said = ""
    main = [said, main_table(measured, gigabits), told, f"Computed from:\n\n{sources}" if sources else ""]
    return {
        BLOCK: "\n\n".join(filter(None, main)),
        WALLS: "\n\n".join(filter(None, [walls_table(measured), told])),
    }


def _table(rows: Mapping[str, Figure]) -> str:
    lines = [f"| photos | {' | '.join(GALLERIES)} |", f"| --- |{' --- |' * len(GALLERIES)}"]
    lines += [
        f"| {name} | {' | '.join(_known(figure, n) for n in GALLERIES.values())} |" for name, figure in rows.items()
    ]
    return "\n".join(lines)


def _known(figure: Figure, photos: int) -> str:
    try:
        return figure(photos)
    except NotMeasuredError:
        return UNKNOWN


def _bytes(count: float) -> str:
    power = 0
    while count >= 1000 and power < len(_UNITS) - 1:
        count, power = count / 1024, power + 1
    return f"{count:.1f} {_UNITS[power]}" if 0 < count < 10 else f"{count:,.0f} {_UNITS[power]}"


def _rate(a_second: float) -> str:
    return f"{a_second:.2g}" if a_second < 10 else f"{a_second:,.0f}"


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.1f} ms" if 0 < milliseconds < 10 else f"{milliseconds:,.0f} ms"


def _hours(hours: float) -> str:
    return f"{hours:.1f} h" if hours < 10 else f"{hours:,.0f} h"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m tests.scale_report", description=__doc__)
    made.add_argument("results", type=Path, metavar="DIR", help="the folder that the benchmarks wrote to")
    made.add_argument("--page", type=Path, metavar="FILE", help="rewrite this page instead of printing the tables")
    made.add_argument(
        "--gigabits", type=float, default=GIGABITS, metavar="N", help=f"a second, of the network ({GIGABITS:g})"
    )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite the page, or print the tables; 2 with a sentence where that cannot be done."""
    options = parser().parse_args(arguments)
    try:
        texts = blocks(read(options.results, quick=False), options.gigabits)
        if options.page:
            rewrite_page(options.page, texts)
        else:
            print("\n\n".join(f"{name}\n\n{text}" for name, text in texts.items()))
    except (OSError, ReportError, PageError, ModelError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
