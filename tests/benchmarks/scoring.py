"""What a score and an encoded picture cost, beside the released computation, as ratios of one run; `make bench`.

The released network's shape has random weights here: time does not depend on them. The default network is another one,
and much smaller; its rows say what that saves. All take turns, and the least time of all rounds counts, so that
whatever else the machine does strikes all alike.
"""

from __future__ import annotations

import argparse
import copy
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel
from torch import nn

import model
from indexer.samples import SKETCHED, draw_photo, draw_sketch
from model.checkpoint import default_checkpoint, load_network
from model.convert import released_config
from model.matcher import CHUNK, Matcher
from model.network import Network
from model.tokens import Tokens
from service.settings import Settings
from tests.benchmarks.circumstances import machine
from tests.benchmarks.released import released_logits, released_tokens

# The released search scores one sketch with so many photos at once.
RELEASED_BATCH = 16
PICTURES = 16
SEED = 0


class Row(BaseModel):
    """One way to compute.

    Attributes:
        part: what is computed: a pair's relation score from encoded tokens, or the tokens of a picture.
        microseconds: a pair or a picture, the least of ``rounds``.
        ratio: the released computation's, divided by this.
    """

    part: Literal["score", "encode"]
    name: str
    dtype: str
    microseconds: float
    ratio: float
    rounds: int


class Result(BaseModel):
    """One run.

    Attributes:
        difference: largest difference of the default network's relation scores in bfloat16 from those in float32,
            over ``compared`` pairs of generated pictures; logit_difference: of what they are the sigmoid of.
    """

    date: str
    machine: str
    threads: int
    versions: dict[str, str]
    network: str
    difference: float = 0.0
    logit_difference: float = 0.0
    compared: int = 0
    rows: list[Row] = []

    def save(self, document: Path) -> None:
        """Written beside it first: a run that is stopped leaves what was finished."""
        part = document.with_suffix(".part")
        part.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
        part.replace(document)


@dataclass(frozen=True)
class Way:
    """One way to compute ``count`` pairs or pictures; the first of its list is what the others are compared with."""

    part: Literal["score", "encode"]
    name: str
    dtype: str
    count: int
    run: Callable[[], object]


def measured(ways: Sequence[Way], rounds: int) -> Iterator[list[Row]]:
    """Rows of all ways after each round."""
    least = [float("inf")] * len(ways)
    for way in ways:
        way.run()
    for done in range(1, rounds + 1):
        for index, way in enumerate(ways):
            start = time.perf_counter()
            way.run()
            least[index] = min(least[index], (time.perf_counter() - start) / way.count)
        yield [
            Row(
                part=way.part,
                name=way.name,
                dtype=way.dtype,
                microseconds=seconds * 1e6,
                ratio=least[0] / seconds,
                rounds=done,
            )
            for way, seconds in zip(ways, least, strict=True)
        ]


def in_precision(network: Network, dtype: torch.dtype) -> Matcher:
    """The same network in another precision; the encoder is shared, not copied."""
    other = copy.deepcopy(network, {id(network.encoder): network.encoder})
    return Matcher(other.set_precision(dtype), "0" * 64)


def random_tokens(network: Network, count: int, seed: int) -> Tokens:
    """As they come out of an encoder's last normalisation; every token is kept that the network keeps of a photo."""
    config = network.config
    n = config.token_count("photo")
    features = torch.randn(count, n, config.width, generator=torch.Generator().manual_seed(seed))
    return Tokens(F.layer_norm(features, (config.width,)), torch.arange(n - 1).expand(count, -1))


def scoring_ways(released: Network, default: Network) -> list[Way]:
    """One sketch against photos: their projections are part of it, as in a search."""
    sketch, photos = random_tokens(released, 1, SEED), random_tokens(released, RELEASED_BATCH, SEED + 1)
    ways = [
        Way(
            "score",
            "released computation",
            "float32",
            RELEASED_BATCH,
            lambda: released_logits(released, sketch.features, photos.features),
        )
    ]
    for name, network, chunks in (("released shape", released, 1), (default.config.name, default, 4)):
        one, many = random_tokens(network, 1, SEED), random_tokens(network, chunks * CHUNK, SEED + 1)
        for dtype in (torch.float32, torch.bfloat16):
            ways.append(scoring_way(name, in_precision(network, dtype), one, many))
    matcher = in_precision(default, torch.bfloat16)
    kept = matcher.project(many)
    count = len(kept)
    name = f"{default.config.name}, photos projected before"
    ways.append(Way("score", name, "bfloat16", count, lambda: matcher.relation_logits(one, kept)))
    return ways


def scoring_way(name: str, matcher: Matcher, sketch: Tokens, photos: Tokens) -> Way:
    """By a matcher."""
    dtype = str(matcher.dtype).removeprefix("torch.")
    return Way("score", name, dtype, len(photos), lambda: matcher.relation_logits(sketch, photos))


def encoding_ways(released: Network, default: Network, clip: nn.Module) -> list[Way]:
    """Pictures as they leave the preprocessing. ``clip``: an image tower for pictures of the same size."""

    def pictures(network: Network) -> torch.Tensor:
        size = network.config.image_size
        return torch.rand(PICTURES, 3, size, size, generator=torch.Generator().manual_seed(SEED)) * 2 - 1

    large, small = pictures(released), pictures(default)
    matcher = Matcher(default, "0" * 64)
    return [
        Way("encode", "released encoder", "float32", PICTURES, lambda: released_tokens(released, large)),
        Way("encode", default.config.name, "float32", PICTURES, lambda: matcher.encode(small, "photo")),
        Way("encode", "CLIP ViT-B/32", "float32", PICTURES, lambda: clip(large)),
    ]


def differences(network: Network, sketches: int, photos: int) -> tuple[float, float]:
    """The largest of the relation scores and of the logits in bfloat16 from those in float32."""
    exact, rounded = (in_precision(network, dtype) for dtype in (torch.float32, torch.bfloat16))
    drawn = torch.stack([exact.prepare(draw_sketch(name), "sketch") for name in SKETCHED[:sketches]])
    names = [SKETCHED[number % len(SKETCHED)] for number in range(photos)]
    shown = [exact.prepare(draw_photo(name, number), "photo") for number, name in enumerate(names)]
    tokens = exact.encode(drawn, "sketch"), exact.encode(torch.stack(shown), "photo")
    a, b = exact.relation_logits(*tokens), rounded.relation_logits(*tokens)
    return float((a.sigmoid() - b.sigmoid()).abs().max()), float((a - b).abs().max())


def released_network() -> Network:
    """Random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return Network(released_config()).requires_grad_(False).eval()


def clip_tower() -> nn.Module:
    """Random weights."""
    import open_clip

    tower: nn.Module = open_clip.create_model("ViT-B-32", pretrained=None).visual
    return tower.requires_grad_(False).eval()


def table(result: Result) -> str:
    """For people."""
    lines = [
        f"{result.machine}; {result.threads} threads; {result.date}",
        f"{'part':<8}{'way':<38}{'precision':<10}{'us':>12}{'faster':>10}",
    ]
    lines += [
        f"{row.part:<8}{row.name:<38}{row.dtype:<10}{row.microseconds:>12.1f}{row.ratio:>9.1f}x" for row in result.rows
    ]
    lines.append(
        f"bfloat16 moves a score of {result.network} by at most {result.difference:.1e}, a logit by "
        f"{result.logit_difference:.1e} ({result.compared} pairs)"
    )
    return "\n".join(lines)


@torch.inference_mode()
def measure(document: Path, released: Network, default: Network, clip: nn.Module, *, quick: bool) -> Result:
    """All of it; ``document`` is written anew whenever a round of measurements is over."""
    packages = ("torch", "timm", "open_clip_torch")
    result = Result(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=machine(),
        threads=torch.get_num_threads(),
        versions={"python": platform.python_version()} | {name: metadata.version(name) for name in packages},
        network=default.config.name,
    )
    sketches, photos = (2, 8) if quick else (len(SKETCHED), 128)
    result.difference, result.logit_difference = differences(default, sketches, photos)
    result.compared = sketches * photos
    result.save(document)
    for ways, rounds in ((scoring_ways(released, default), 15), (encoding_ways(released, default, clip), 5)):
        before = result.rows
        for rows in measured(ways, 2 if quick else rounds):
            result.rows = before + rows
            result.save(document)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the table, write OUTPUT/scoring.json; 2 with a sentence where there is no checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="checkpoint (SBIR_WEIGHTS, else the embedded one)")
    parser.add_argument("--quick", action="store_true", help="two rounds, few pictures")
    options = parser.parse_args(arguments)
    try:
        default = load_network(default_checkpoint(options.weights or Settings().weights))
    except model.ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options.output.mkdir(parents=True, exist_ok=True)
    document = options.output / "scoring.json"
    result = measure(document, released_network(), default, clip_tower(), quick=options.quick)
    print(f"{table(result)}\n{document}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
