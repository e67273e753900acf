"""How long a search takes with liked photos, a word and a page of kinds, beside one by the sketch alone; `make bench`.

All ways take turns over the same sketches, through a server on this machine, so other work slows all of them alike.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import httpx
import numpy as np

from tests.benchmarks.command import Command, by_server, demo
from tests.benchmarks.results import Row

Parameters: TypeAlias = Mapping[str, str | list[int]]

ROUNDS, QUICK_ROUNDS = 20, 1
LIKED = 5


def ways(url: str, sketch: bytes) -> dict[str, Parameters]:
    """The parameters of each way: the first photos for the sketch are liked, and the first word known is asked for.

    Ways with a word are left out where the network has no vocabulary.
    """
    found = httpx.post(f"{url}/search", content=sketch, params={"k": LIKED + 1}).raise_for_status().json()["results"]
    like: dict[str, str | list[int]] = {"like": [result["id"] for result in found[:LIKED]]}
    named: dict[str, Parameters] = {
        "the sketch alone": {},
        "and kinds instead of photos": {"view": "groups"},
        "and 5 liked photos": like,
        "and a photo that is not liked": {"unlike": [found[-1]["id"]]},
    }
    known = httpx.get(f"{url}/words")
    if known.status_code == httpx.codes.OK and (words := known.json()["words"]):
        named["and a word"] = {"text": words[0]}
        named["and 5 liked photos and a word"] = {**like, "text": words[0]}
    return named


def measure(url: str, sketches: Sequence[bytes], rounds: int) -> list[Row]:
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
    return [
        {
            "a search by": name,
            "median (ms)": median,
            "95% within (ms)": float(np.percentile(taken[name], 95)),
            "as a multiple": median / alone,
        }
        for name, median in medians.items()
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the table, write OUTPUT/parts-of-a-query.json."""
    command = Command("query_parts", __doc__, photos=True)
    options = command.begin(arguments)
    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    with demo(options) as (url, drawn):
        sketches = drawn[: 1 if options.quick else None]
        photos = httpx.get(f"{url}/info").json()["index"]["photos"]
        said = f"{rounds * len(sketches)} searches of each kind, which take turns; {photos:,} photos."
        rows = measure(url, sketches, rounds)
        command.save(command.result("Parts of a query", by_server(url), rows=rows, said=said))
    return 0


if __name__ == "__main__":
    sys.exit(main())
