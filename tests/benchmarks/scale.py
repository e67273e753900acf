"""Computes the table of docs/scale.md: what galleries take that nobody has tried, from what the benches have measured.

A shard is as large as the largest gallery that was measured, on such a machine as it was measured on, and has clusters
of as many photos. So nothing is said of larger shards; what grows is how many there are. `make bench` writes the table
as its last step.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from sketch_search.indexer.store.shards import MAX_ID
from sketch_search.model import load
from sketch_search.model.search.candidates import MATCHED
from sketch_search.model.search.clusters import POINTS_PER_CLUSTER, default_clusters
from sketch_search.service.commands.serve import SEARCHES_AT_ONCE
from sketch_search.service.settings import NPROBE
from tests.benchmarks import results
from tests.benchmarks.ingress import fitted
from tests.benchmarks.results import Result, ResultError, Row, table

GALLERIES = {"a million": 10**6, "a hundred million": 10**8, "a billion": 10**9}
SOURCES = ("Large galleries", "Shards", "Shards asked", "Ingress", "Indexing")
# Assumed, not measured: the network between machines, and the rent of one with two cores, 8 GiB and a disk.
GIGABITS, DOLLARS = 10.0, 40.0
# Bytes of a number, of an id, and of the numbers of vectors and tokens.
NUMBER, ID, FLOAT, HALF = 8, 4, 4, 2
# Ingresses side by side, as an example of several.
SEVERAL = 4
# Bytes that the driver of a build keeps of each photo: where its row is, and its cluster, twice for a while.
PLACED = 20
# How often rows are on the disk while shards are built again: in slices, in the new shards and in those before.
TIMES_ON_DISK = 3
MIB = 2**20


def tables(measured: Mapping[str, Result], gigabits: float = GIGABITS, dollars: float = DOLLARS) -> dict[str, str]:
    """Returns the block Scale. Raises ResultError where a result that it needs, or a row of one, is missing.

    Shards work at the same time. They take as long as one shard would that had all opened clusters; several take less.

    Args:
        gigabits: a second, of the network between shards and ingress. dollars: the rent of a machine for a month.
    """
    if missing := {*SOURCES} - measured.keys():
        raise ResultError(f"no bench has measured {', '.join(sorted(missing))}")
    ingress = measured["Ingress"]
    smaller, largest = sorted(measured["Large galleries"].rows, key=lambda row: number(row, "photos"))[-2:]
    plain, one = (measured["Shards"].row(gallery=name) for name in ("one index beside 1", "1 by Ray"))
    builds = {str(row["way"]).partition(", ")[2]: row for row in measured["Indexing"].rows}
    whole, phones = builds["whole build"], builds["whole build of 12 MP JPEGs"]
    per_shard, alone = number(largest, "photos"), "a query alone (ms)"
    grown = number(largest, "index on disk (MiB)") - number(smaller, "index on disk (MiB)")
    photo = grown * MIB / (per_shard - number(smaller, "photos"))
    config = load().config
    width, tokens = config.width, config.token_count("photo")
    # Of a cell, the ingress has its size, its mean vector, its mean tokens and where these are.
    cell = NUMBER + width * FLOAT + tokens * width * HALF + tokens - 1
    none_ms, each_ms = fitted(ingress.rows)
    weighed = [[number(row, name) for row in ingress.rows] for name in ("shards asked", "answered (KiB)")]
    placed = measured["Shards asked"].rows
    stages, wire = ("encode", "choose", "score", "diffuse"), f"network of {gigabits:g} Gbit/s"

    def gallery(photos: int) -> Row:
        shards = -(-photos // round(per_shard))
        parts = {name: number(largest, f"{name} (ms)") for name in stages}
        parts["HTTP"] = number(plain, alone) - number(plain, "all stages (ms)")
        # A shard holds whole cells, and only those that have an opened one are asked.
        most = min(shards, NPROBE)
        asked = next((number(row, "asked") for row in placed if row["shards"] == shards), float(most))
        gathered = 0.0
        if shards > 1:
            gathered = 1024 * float(np.interp(asked, weighed[0], weighed[1]))
            ingress_ms, wire_ms = none_ms + asked * each_ms, gathered * 8 / (gigabits * 1e6)
            # The ingress does these.
            del parts["choose"], parts["diffuse"]
            parts |= {"ingress": ingress_ms, "Ray itself": number(one, alone) - number(plain, alone), wire: wire_ms}
            rates = {
                "the shards": 1000 * shards / parts["score"],
                "the encoder of the ingress": 1000 / parts["encode"],
                "the ingress": 1000 / (ingress_ms + parts["HTTP"]),
                "the network of the ingress": 1000 / wire_ms,
            }
        else:
            rates = {"the machine": 1000 / sum(parts.values())}
        by_several = {name: rate * (SEVERAL if "the ingress" in name else 1) for name, rate in rates.items()}
        cells = shards * number(largest, "clusters") * cell
        kept = cells + photos * ID + gathered * SEARCHES_AT_ONCE

        def of_shards(size: float) -> str:
            return in_bytes(size) if shards > 1 else "none"

        hours = [photos / shards / number(row, "photos a second") / 3600 for row in (whole, phones)]
        wall, machines = min(rates, key=rates.__getitem__), shards + (shards > 1)
        return {
            "shards": shards,
            "of them asked by a query, at most": most,
            "of them asked, on average": asked,
            "machines that search": machines,
            "their rent for a month (dollars)": machines * dollars,
            "index on disk": in_bytes(photos * photo),
            "on each machine, while it is built again": in_bytes(TIMES_ON_DISK * photos * photo / shards),
            "memory of the process of a shard": in_bytes(number(largest, "whole process (MiB)") * MIB),
            "memory of the ingress, beside the network": of_shards(kept),
            "memory of the driver of a build": in_bytes(driver_bytes(photos, width)),
            "building on as many machines as shards, small photos (h)": hours[0],
            "the same, photos of 12 megapixels (h)": hours[1],
            "a query alone (ms)": sum(parts.values()),
            **{f"- {name} (ms)": parts.get(name, "in the ingress") for name in stages},
            **{f"- {name} (ms)": parts.get(name, "none") for name in ("HTTP", "ingress", "Ray itself", wire)},
            "what shards send the ingress for a query": of_shards(gathered),
            "token reads of a query, over all shards, at most": f"{in_bytes(MATCHED * photo)} in {MATCHED} places",
            "queries a second": rates[wall],
            f"the same, with {SEVERAL} ingresses": min(by_several.values()) if shards > 1 else "none",
            "what limits them: the next wall": wall,
            "ids given, of those there are": f"{photos / MAX_ID:.2%}",
        }

    scale = transposed({name: gallery(photos) for name, photos in GALLERIES.items()})
    said = f"A shard has {per_shard:,.0f} photos, as the largest gallery that was measured. Each photo takes "
    said += f"{in_bytes(photo)} on the disk."
    sources = "\n".join(
        f"- {name}: {measured[name].machine}; {measured[name].date}: `{measured[name].command}`" for name in SOURCES
    )
    return {"Scale": f"{said}\n\n{table(scale)}\n\nComputed from:\n\n{sources}"}


def driver_bytes(photos: int, width: int) -> int:
    """Returns the bytes that the driver of a build keeps: where each photo is, and the vectors that k-means sees."""
    clusters = default_clusters(photos)
    return photos * PLACED + min(photos, clusters * POINTS_PER_CLUSTER) * width * FLOAT


def number(row: Row, column: str) -> float:
    """A number that a bench measured. Raises ResultError where the row has none."""
    value = row.get(column)
    if not isinstance(value, int | float):
        raise ResultError(f"{row} has no number for {column!r}; measure it again")
    return value


def transposed(columns: Mapping[str, Row]) -> list[Row]:
    """A row for each thing that any column has, "none" where another one has it not."""
    names = dict.fromkeys(name for column in reversed([*columns.values()]) for name in column)
    return [{"photos": name, **{head: column.get(name, "none") for head, column in columns.items()}} for name in names]


def in_bytes(count: float) -> str:
    units = iter(("B", "KiB", "MiB", "GiB", "TiB", "PiB"))
    unit = next(units)
    while count >= 1000:
        count, unit = count / 1024, next(units)
    return f"{count:.1f} {unit}" if 0 < count < 10 else f"{count:,.0f} {unit}"


def parser() -> argparse.ArgumentParser:
    made = results.parser("scale", __doc__)
    made.add_argument("--gigabits", type=float, default=GIGABITS, metavar="N", help="a second, of the network (10)")
    made.add_argument("--dollars", type=float, default=DOLLARS, metavar="N", help="a month, for a machine (40)")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    return results.publish(options, lambda measured: tables(measured, options.gigabits, options.dollars))


if __name__ == "__main__":
    sys.exit(main())
