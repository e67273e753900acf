"""What a search of a large gallery takes, and what it misses; `make bench`.

The galleries are made of the rows of an index of real photos (``large_index``), the queries are real sketches. Each is
opened and searched in a process of its own (``large_search``), which says how much memory it has then.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from indexer import build, open_index
from indexer.samples import SKETCHED, draw_sketch
from indexer.store import INVERTED_FROM
from model import Matcher
from model.datasets.corpus import DATA_VARIABLE, data_folder, read_data
from tests.benchmarks.circumstances import BenchmarkResult, circumstances
from tests.benchmarks.command import Command
from tests.benchmarks.galleries import draw_gallery, prepare
from tests.benchmarks.large_index import write_large_index
from tests.benchmarks.large_search import PARTS, Asked, Row

SIZES = (1000, 10_000, 100_000, 1_000_000)
QUICK_SIZES = (200, 400)
QUERIES, QUICK_QUERIES = 50, 2
DRAWN, DRAWN_QUICKLY = 400, 40


class Result(BenchmarkResult):
    """One run, as far as it is. source: photos that the galleries were made of; queries: how many sketches."""

    source: int
    queries: int
    rows: list[Row]


def sketches(count: int, folder: Path) -> list[Path]:
    """The queries: real sketches of the classes in turn where there are any, else drawn ones, as files in a folder."""
    if os.environ.get(DATA_VARIABLE):
        found = read_data(data_folder()).sketches
        return [picture.path for picture in found[:: max(1, len(found) // count)][:count]]
    files = [folder / f"sketch-{name}.png" for name in SKETCHED[:count]]
    for name, file in zip(SKETCHED, files, strict=False):
        draw_sketch(name).save(file)
    return files


def table(result: Result) -> str:
    """The result as a table for the terminal."""
    lines = [
        f"{result.source} photos, {result.queries} sketches",
        f"{'photos':>9} {'by':>9}{'p50':>7}{'p95':>7}{'filter':>8}  "
        + "".join(f"{part:>10}" for part in PARTS[:-1])
        + f"{'found':>7}{'open s':>8}{'MiB':>6}{'opened':>8}{'searched':>9}{'own':>6}{'disk':>8}{'lookup':>8}",
    ]
    for row in result.rows:
        way, p50, p95 = "inverted" if row.inverted else "all", row.p50_ms["total"], row.p95_ms["total"]
        lines.append(
            f"{row.photos:>9} {way:>9}{p50:>7.1f}{p95:>7.1f}{row.filtered_ms[0]:>8.1f}  "
            + "".join(f"{row.p50_ms[part]:>10.1f}" for part in PARTS[:-1])
            + f"{row.found:>7.3f}{row.open_seconds:>8.2f}{row.before_mib:>6.0f}{row.opened_mib:>8.0f}"
            + f"{row.searched_mib:>9.0f}{row.own_mib:>6.0f}{row.disk_mib:>8.0f}{row.lookup_mib:>8.0f}"
        )
    return "\n".join(lines)


def _in_own_process(asked: Asked) -> Row:
    command = [sys.executable, "-m", "tests.benchmarks.large_search", asked.model_dump_json()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{asked.place} could not be measured:\n{done.stderr}")
    return Row.model_validate_json(done.stdout.splitlines()[-1])


def _source(options: Any, matcher: Matcher) -> Path:
    """The index that galleries are made of."""
    if options.source is not None:
        return Path(options.source)
    if os.environ.get(DATA_VARIABLE) and not options.quick:
        place: Path = options.output / f"all_photos-{matcher.checkpoint_sha256[:8]}"
        prepare(place, matcher, None)
        return place
    place = options.output / f"drawn-large-{matcher.checkpoint_sha256[:8]}"
    draw_gallery(place.with_name(f"{place.name}-photos"), DRAWN_QUICKLY if options.quick else DRAWN)
    build([place.with_name(f"{place.name}-photos")], place, matcher, embedder="ret")
    return place


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the table, write OUTPUT/large.json."""
    command = Command("large", __doc__, device=False)
    command.add_argument("--sizes", type=int, nargs="+", metavar="N", help="photos of each gallery")
    command.add_argument("--queries", type=int, metavar="N", help="how many sketches")
    command.add_argument("--source", type=Path, metavar="INDEX", help="the index that galleries are made of")
    command.add_argument("--inverted-from", type=int, metavar="N", help="photos from which on there is one")
    command.add_argument("--own-cells", action="store_true", help="with cells other than the clusters")
    command.add_argument("--keep", action="store_true", help="leave the galleries where they were made")
    options, call = command.begin(arguments)
    matcher = command.load(options)
    source = _source(options, matcher)
    queries = sketches(options.queries or (QUICK_QUERIES if options.quick else QUERIES), options.output)
    least = INVERTED_FROM if options.inverted_from is None else options.inverted_from
    with open_index(source, matcher) as index:
        photos = index.photo_count
    result = Result(
        circumstances=circumstances(matcher, call), finished=False, source=photos, queries=len(queries), rows=[]
    )
    sizes = options.sizes or (QUICK_SIZES if options.quick else SIZES)
    for size in sizes:
        inverted = size >= (QUICK_SIZES[-1] if options.quick and options.inverted_from is None else least)
        way = "-own" if inverted and options.own_cells else "-inverted" if inverted else ""
        place = options.output / f"large-{size}{way}-{matcher.checkpoint_sha256[:8]}"
        start = time.perf_counter()
        write_large_index(place, source, size, inverted=inverted, own_cells=options.own_cells)
        made = time.perf_counter() - start
        asked = Asked(place=place, weights=command.weights(options), sketches=queries, made_seconds=made)
        result.rows.append(_in_own_process(asked))
        result.finished = size == sizes[-1]
        result.save(options.output / "large.json")
        if not options.keep:
            shutil.rmtree(place)
    print(f"{table(result)}\n{options.output / 'large.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
