"""Two-stage search against the exhaustive one: pairs scored and time, as ratios of one run; `make bench`.

The gallery is drawn by the sample generator, so it is larger than the samples but no harder: the ratios say what the
search saves, not how good the network is. Agreement is with the exhaustive search, not with the truth.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

import model
from indexer import Index, build, open_index
from indexer.samples import SKETCHED, THINGS, draw_photo, draw_sketch
from model.checkpoint import default_checkpoint
from service.search import Searcher, SearchOutcome
from service.settings import Settings

REPEATS = 3
K = 20


class Row(BaseModel):
    """One way to search. Ratios: the exhaustive search of the same method divided by this.

    Attributes:
        pairs: sketch-centroid and sketch-photo pairs scored, mean over the sketches.
        milliseconds: of scoring centroids and photos, the sketch's encoding left out; median over sketches and repeats.
        agreement: the part of the exhaustive search's best K that is among this one's best K, mean.
    """

    method: str
    nprobe: int | Literal["all"]
    pairs: float
    pairs_ratio: float
    milliseconds: float
    time_ratio: float
    agreement: float


class Result(BaseModel):
    """One run."""

    network: str
    photos: int
    clusters: int
    embedder: str
    sketches: int
    repeats: int
    k: int
    rows: list[Row]


def draw_gallery(folder: Path, count: int) -> None:
    """``count`` different pictures, things in turn."""
    names = list(THINGS)
    for number in range(count):
        picture = draw_photo(names[number % len(names)], number // len(names) + 1)
        picture.save(folder / f"{number:05}.jpg", quality=90)


def compare(index: Index, matcher: model.Matcher) -> list[Row]:
    """All methods of the checkpoint, from one cluster to all."""
    searcher = Searcher(index, matcher)
    sketches = [draw_sketch(name) for name in SKETCHED]
    rows: list[Row] = []
    for method in matcher.methods:
        steps: list[int | Literal["all"]] = ["all"]
        steps += [n for n in (1, 2, 4, 8, 16, 32) if n < index.cluster_count]
        runs: dict[int | Literal["all"], list[list[SearchOutcome]]] = {nprobe: [] for nprobe in steps}
        for sketch in sketches:
            searcher.search(sketch, k=K, method=method)
            for nprobe in steps:
                runs[nprobe].append([])
            # In turns, so that whatever else the machine does strikes all alike.
            for _ in range(REPEATS):
                for nprobe in steps:
                    runs[nprobe][-1].append(searcher.search(sketch, k=K, nprobe=nprobe, method=method))
        full_pairs, full_time = _pairs(runs["all"]), _milliseconds(runs["all"])
        best = [_ids(outcomes[0]) for outcomes in runs["all"]]
        for nprobe in steps:
            found = [_ids(outcomes[0]) for outcomes in runs[nprobe]]
            shared = [len(a & b) / len(a) for a, b in zip(best, found, strict=True)]
            pairs, time = _pairs(runs[nprobe]), _milliseconds(runs[nprobe])
            row = Row(
                method=method,
                nprobe=nprobe,
                pairs=pairs,
                pairs_ratio=full_pairs / pairs,
                milliseconds=time,
                time_ratio=full_time / time,
                agreement=statistics.mean(shared),
            )
            rows.append(row)
    return rows


def _ids(outcome: SearchOutcome) -> set[int]:
    return {hit.id for hit in outcome.results}


def _pairs(runs: list[list[SearchOutcome]]) -> float:
    return statistics.mean(outcomes[0].pairs_scored for outcomes in runs)


def _milliseconds(runs: list[list[SearchOutcome]]) -> float:
    return statistics.median(run.timings.clusters + run.timings.photos for outcomes in runs for run in outcomes)


def table(result: Result) -> str:
    """For people."""
    lines = [
        f"{result.network}: {result.photos} photos in {result.clusters} clusters by {result.embedder}, "
        f"{result.sketches} sketches, k {result.k}",
        f"{'method':<7}{'nprobe':>7}{'pairs':>9}{'fewer':>8}{'ms':>9}{'faster':>8}{'agree':>8}",
    ]
    lines += [
        f"{row.method:<7}{row.nprobe:>7}{row.pairs:>9.0f}{row.pairs_ratio:>7.1f}x{row.milliseconds:>9.2f}"
        f"{row.time_ratio:>7.1f}x{row.agreement:>8.2f}"
        for row in result.rows
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the table, write OUTPUT/two_stage.json; 2 with a sentence where there is no checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="checkpoint (SBIR_WEIGHTS, else the embedded one)")
    parser.add_argument("--photos", type=int, default=500, metavar="N")
    options = parser.parse_args(arguments)
    try:
        matcher = model.load(default_checkpoint(options.weights or Settings().weights))
    except model.ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        gallery, place = Path(folder) / "gallery", Path(folder) / "index"
        gallery.mkdir()
        draw_gallery(gallery, options.photos)
        build([gallery], place, matcher, embedder="ret")
        index = open_index(place, matcher)
        result = Result(
            network=matcher.config.name,
            photos=index.photo_count,
            clusters=index.cluster_count,
            embedder=index.manifest.embedder.name,
            sketches=len(SKETCHED),
            repeats=REPEATS,
            k=K,
            rows=compare(index, matcher),
        )
        index.close()
    options.output.mkdir(parents=True, exist_ok=True)
    document = options.output / "two_stage.json"
    document.write_text(json.dumps(result.model_dump(), indent=1) + "\n", encoding="utf-8")
    print(f"{table(result)}\n{document}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
