"""What a score and an encoded picture cost, compared with the released computation in one run; `make bench`.

The released network's shape has random weights here, because time does not depend on them. The default network is
another one, and much smaller; its rows say what that saves. All ways take turns, and the least time of all rounds
counts, so that other work of the machine slows all of them alike.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from pydantic import BaseModel
from torch import nn

from indexer.samples import SKETCHED, draw_photo, draw_sketch
from model.network.precision import fastest_dtype
from model.network.zse import Network, as_zse
from tests.benchmarks.circumstances import BenchmarkResult, Call, circumstances, named, peak_mib, synchronised
from tests.benchmarks.command import Command
from tests.benchmarks.turns import least_seconds
from tests.benchmarks.ways import (
    REDUCED,
    SEED,
    Part,
    Way,
    clip_tower,
    device_of,
    encoding_ways,
    in_precision,
    random_tokens,
    released_network,
    scoring_way,
    scoring_ways,
)

CHUNKS = (8, 16, 32, 64, 128, 256)


class Row(BaseModel):
    """One way to compute.

    Attributes:
        part: what is computed: the relation score of a pair from encoded tokens, or the tokens of a picture.
        microseconds: for a pair or a picture, the least of ``rounds``.
        ratio: the microseconds of the released computation, divided by these.
    """

    part: Part
    name: str
    dtype: str
    microseconds: float
    ratio: float
    rounds: int


class Difference(BaseModel):
    """The largest differences between ``dtype`` and float32 in the default network's relation scores and logits."""

    dtype: str
    score: float
    logit: float


class ChunkTime(BaseModel):
    """Microseconds a pair of the default network takes when ``pairs`` are scored at once."""

    pairs: int
    microseconds: float


class Result(BenchmarkResult):
    """One run. The precision of its circumstances is the default network's fastest.

    Attributes:
        differences: over ``compared`` pairs of generated pictures.
        chunks: in the fastest precision. The size of a chunk is fixed for all machines, because another one would
            change the last bit of scores. These times say what that costs.
    """

    compared: int
    differences: list[Difference]
    rows: list[Row]
    chunks: list[ChunkTime]


def measured(ways: Sequence[Way], rounds: int, device: torch.device) -> Iterator[list[Row]]:
    """Run all ways in rounds; yields the rows of all of them after each round."""
    for way in ways:
        way.run()
    synchronised(device)
    for done, least in enumerate(least_seconds([way.run for way in ways], rounds, device), start=1):
        each = [seconds / way.count for way, seconds in zip(ways, least, strict=True)]
        yield [
            Row(
                part=way.part,
                name=way.name,
                dtype=way.dtype,
                microseconds=seconds * 1e6,
                ratio=each[0] / seconds,
                rounds=done,
            )
            for way, seconds in zip(ways, each, strict=True)
        ]


def chunk_times(network: Network, dtype: torch.dtype, rounds: int) -> list[ChunkTime]:
    """The time of a pair for each of CHUNKS, the least of ``rounds``."""
    one, many = random_tokens(network, 1, SEED), random_tokens(network, max(CHUNKS), SEED + 1)
    ways = [scoring_way("", in_precision(network, dtype, chunk), one, many) for chunk in CHUNKS]
    *_, rows = measured(ways, rounds, device_of(network))
    return [ChunkTime(pairs=n, microseconds=row.microseconds) for n, row in zip(CHUNKS, rows, strict=True)]


def differences(network: Network, sketches: int, photos: int) -> list[Difference]:
    """The differences of every precision below float32 that this device has."""
    exact = in_precision(network, torch.float32)
    drawn = torch.stack([exact.prepare(draw_sketch(name), "sketch") for name in SKETCHED[:sketches]])
    names = [SKETCHED[number % len(SKETCHED)] for number in range(photos)]
    shown = [exact.prepare(draw_photo(name, number), "photo") for number, name in enumerate(names)]
    tokens = exact.encode(drawn, "sketch"), exact.encode(torch.stack(shown), "photo")
    expected = exact.relation_logits(*tokens)
    found: list[Difference] = []
    for dtype in REDUCED[exact.device.type]:
        logits = in_precision(network, dtype).relation_logits(*tokens)
        score = float((logits.sigmoid() - expected.sigmoid()).abs().max())
        found.append(Difference(dtype=named(dtype), score=score, logit=float((logits - expected).abs().max())))
    return found


def table(result: Result) -> str:
    """The result as a table for the terminal."""
    head = result.circumstances
    lines = [
        f"{head.machine}; {head.device}, {head.threads} threads; {head.date}",
        f"{'part':<8}{'way':<60}{'precision':<10}{'us':>12}{'faster':>10}",
    ]
    lines += [
        f"{row.part:<8}{row.name:<60}{row.dtype:<10}{row.microseconds:>12.1f}{row.ratio:>9.1f}x" for row in result.rows
    ]
    chunks = ", ".join(f"{chunk.pairs}: {chunk.microseconds:.0f}" for chunk in result.chunks)
    lines.append(f"us a pair of {head.network} in {head.dtype}, by pairs scored at once: {chunks}")
    lines += [
        f"{moved.dtype} moves a score of {head.network} by at most {moved.score:.1e}, a logit by {moved.logit:.1e} "
        f"({result.compared} pairs)"
        for moved in result.differences
    ]
    return "\n".join(lines)


@torch.inference_mode()
def measure(document: Path, released: Network, default: Network, clip: nn.Module, call: Call) -> Result:
    """Measure everything on the networks' device. Writes ``document`` after every round."""
    device = device_of(default)
    fastest = fastest_dtype(default, device)
    sketches, photos = (2, 8) if call.quick else (len(SKETCHED), 128)
    result = Result(
        circumstances=circumstances(in_precision(default, fastest), call),
        compared=sketches * photos,
        differences=differences(default, sketches, photos),
        finished=False,
        rows=[],
        chunks=[],
    )
    scoring = scoring_ways(released, default, fastest, compiled=not call.quick)
    for ways, rounds in ((scoring, 15), (encoding_ways(released, default, clip), 5)):
        before = result.rows
        for rows in measured(ways, 2 if call.quick else rounds, device):
            result.rows = before + rows
            result.save(document)
    result.chunks = chunk_times(default, fastest, 2 if call.quick else 15)
    result.finished, result.peak_mib = True, peak_mib(device)
    result.save(document)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the table, write OUTPUT/scoring.json."""
    command = Command("scoring", __doc__, device=True)
    options, call = command.begin(arguments)
    matcher = command.load(options, torch.float32)
    document = options.output / "scoring.json"
    released, clip = released_network().to(matcher.device), clip_tower().to(matcher.device)
    result = measure(document, released, as_zse(matcher.network), clip, call)
    print(f"{table(result)}\n{document}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
