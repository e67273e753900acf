"""How long a search takes with liked photos, a word and a page of kinds, beside one by the sketch alone; `make bench`.

All ways take turns over the same sketches, through a server on this machine, so other work slows all of them alike.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import httpx
import numpy as np
from pydantic import BaseModel

from tests.benchmarks.circumstances import BenchmarkResult, Call, circumstances_at
from tests.benchmarks.command import Command
from tests.benchmarks.served_demo import demo, demo_sketches

Parameters: TypeAlias = Mapping[str, str | list[int]]

ROUNDS, QUICK_ROUNDS = 20, 1
LIKED = 5
# What a query with liked photos and a word may take, as a multiple of one by the sketch alone.
TARGET = 1.3


class Row(BaseModel):
    """One way to search.

    Attributes:
        ratio: its median over that of the first way.
    """

    name: str
    median_ms: float
    p95_ms: float
    ratio: float


class Result(BenchmarkResult):
    """One run.

    Attributes:
        photos: of the gallery.
        searches: of each way.
    """

    photos: int
    searches: int
    rows: list[Row]


def ways(url: str, sketch: bytes) -> dict[str, Parameters]:
    """The parameters of each way: the first photos for the sketch are liked, and the first word known is asked for.

    Ways with a word are left out where the network has no vocabulary.
    """
    found = httpx.post(f"{url}/search", content=sketch, params={"k": LIKED + 1}).raise_for_status().json()["results"]
    like: dict[str, str | list[int]] = {"like": [result["id"] for result in found[:LIKED]]}
    named: dict[str, Parameters] = {
        "the sketch alone": {},
        "and kinds instead of photos": {"view": "kinds"},
        "and 5 liked photos": like,
        "and a photo that is not liked": {"unlike": [found[-1]["id"]]},
    }
    known = httpx.get(f"{url}/words")
    if known.status_code == httpx.codes.OK and (words := known.json()["words"]):
        named["and a word"] = {"text": words[0]}
        named["and 5 liked photos and a word"] = {**like, "text": words[0]}
    return named


def measure(url: str, sketches: Sequence[bytes], rounds: int, call: Call) -> Result:
    """Search with each sketch in each way, so many rounds; a round before them is not counted."""
    named = ways(url, sketches[0])
    taken: dict[str, list[float]] = {name: [] for name in named}
    with httpx.Client(base_url=url, timeout=300) as client:
        for number in range(rounds + 1):
            for sketch in sketches:
                for name, parameters in named.items():
                    begun = time.perf_counter()
                    client.post("/search", content=sketch, params=dict(parameters)).raise_for_status()
                    if number:
                        taken[name].append(1000 * (time.perf_counter() - begun))
    medians = {name: float(np.median(times)) for name, times in taken.items()}
    alone, *_ = medians.values()
    return Result(
        circumstances=circumstances_at(url, call),
        photos=httpx.get(f"{url}/info").json()["index"]["photos"],
        searches=rounds * len(sketches),
        rows=[
            Row(name=name, median_ms=median, p95_ms=float(np.percentile(taken[name], 95)), ratio=median / alone)
            for name, median in medians.items()
        ],
    )


def table(result: Result) -> str:
    """The result as a table for the terminal."""
    lines = [f"{result.searches} searches each, {result.photos:,} photos, {result.circumstances.machine}"]
    lines.append(f"{'':<32}{'median ms':>10}{'p95 ms':>9}{'ratio':>7}")
    lines += [f"{row.name:<32}{row.median_ms:>10.1f}{row.p95_ms:>9.1f}{row.ratio:>7.2f}" for row in result.rows]
    return "\n".join([*lines, f"wanted: a ratio of at most {TARGET}"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the table, write OUTPUT/query_parts.json."""
    command = Command("query_parts", __doc__, device=False)
    command.add_argument("--photos", type=Path, help="photos to search instead of the sample gallery")
    options, call = command.begin(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with demo(folder, options.photos, options.weights) as url:
            sketches = demo_sketches(folder)[: 1 if options.quick else None]
            result = measure(url, sketches, QUICK_ROUNDS if options.quick else ROUNDS, call)
    document = options.output / "query_parts.json"
    result.save(document)
    print(f"{table(result)}\n{document}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
