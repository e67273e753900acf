"""What a score and an encoded picture cost, compared with the released computation in one run; `make bench`.

The released network's shape has random weights here, because time does not depend on them. The default network is
another one, and much smaller; its rows say what that saves. All ways take turns, and the least time of all rounds
counts, so that other work of the machine slows all of them alike. The released computation is written in plain eager
PyTorch at the end of this module. It shares only the weights with a network; tests check that its results are equal.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from indexer.samples import SKETCHED, draw_photo, draw_sketch
from model.checkpoint.conversion import released_config
from model.matcher import Matcher
from model.network.config import Modality
from model.network.relation import CrossBranch, KernelRelation
from model.network.tokens import Tokens
from model.network.zse import Network, as_zse, fastest_dtype
from tests.benchmarks.command import Command, by_matcher, least_seconds, named, peak_said
from tests.benchmarks.results import Result, Row

# Pairs that are scored at once. Their number is fixed for all machines, because another one would change the last bit
# of scores; the bench says what that costs.
CHUNKS = (8, 16, 32, 64, 128, 256)
# The released search scores one sketch against so many photos at once.
RELEASED_BATCH = 16
PICTURES = 16
# Precisions that may be faster than float32, by kind of device.
REDUCED = {"cpu": (torch.bfloat16,), "cuda": (torch.bfloat16, torch.float16)}
SEED = 0


@dataclass(frozen=True)
class Way:
    """A way to compute ``count`` pairs or pictures. In a list of ways, all others are compared with the first."""

    name: str
    dtype: str
    count: int
    run: Callable[[], object]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the table, write OUTPUT/scoring.json."""
    command = Command("scoring", __doc__, device=True)
    command.begin(arguments)
    matcher = command.load(torch.float32)
    released, clip = released_network().to(matcher.device), clip_tower().to(matcher.device)
    command.save(measure(command, released, as_zse(matcher.network), clip))
    return 0


@torch.inference_mode()
def measure(command: Command, released: Network, default: Network, clip: nn.Module) -> Result:
    """Measure everything on the networks' device."""
    quick, device = command.options.quick, device_of(default)
    fastest = fastest_dtype(default, device)
    sketches, photos = (2, 8) if quick else (len(SKETCHED), 128)
    moved = differences(default, sketches, photos)
    one, many = random_tokens(default, 1, SEED), random_tokens(default, max(CHUNKS), SEED + 1)
    in_chunks = [scoring_way("", in_precision(default, fastest, chunk), one, many) for chunk in CHUNKS]
    of_scores = scoring_ways(released, default, fastest, compiled=not quick)
    rows = measured("a pair", of_scores, 2 if quick else 15, device)
    for modality in ("photo", "sketch"):
        rows += measured(f"a {modality}", encoding_ways(released, default, clip, modality), 2 if quick else 5, device)
    chunks = measured("", in_chunks, 2 if quick else 15, device)
    times = ", ".join(f"{n}: {row['microseconds']:.0f} µs" for n, row in zip(CHUNKS, chunks, strict=True))
    return command.result(
        "Scoring",
        by_matcher(in_precision(default, fastest)),
        rows=rows,
        said=f"The time of a pair of {default.config.name} in {named(fastest)}, by the number scored at once: {times}. "
        f"Change of a score by a lower precision, over {sketches * photos:,} pairs: "
        + "; ".join(f"{name} by at most {change:.2g}" for name, change in moved.items())
        + f".{peak_said(device)}",
    )


def measured(part: str, ways: Sequence[Way], rounds: int, device: torch.device) -> list[Row]:
    """A row for each way, the least of so many rounds after one that is not counted."""
    for way in ways:
        way.run()
    least = least_seconds([way.run for way in ways], rounds, device)
    each = [seconds / way.count for way, seconds in zip(ways, least, strict=True)]
    return [
        {"": part, "way": f"{way.name}, {way.dtype}", "microseconds": seconds * 1e6, "times faster": each[0] / seconds}
        for way, seconds in zip(ways, each, strict=True)
    ]


def differences(network: Network, sketches: int, photos: int) -> dict[str, float]:
    """Measures the largest change of a score by every precision below float32 that this device has."""
    exact = in_precision(network, torch.float32)
    drawn = torch.stack([exact.prepare(draw_sketch(name), "sketch") for name in SKETCHED[:sketches]])
    names = [SKETCHED[number % len(SKETCHED)] for number in range(photos)]
    shown = [exact.prepare(draw_photo(name, number), "photo") for number, name in enumerate(names)]
    tokens = exact.encode(drawn, "sketch"), exact.encode(torch.stack(shown), "photo")
    expected = exact.relation_logits(*tokens).sigmoid()
    return {
        named(dtype): float((in_precision(network, dtype).relation_logits(*tokens).sigmoid() - expected).abs().max())
        for dtype in REDUCED[exact.device.type]
    }


def in_precision(network: Network, dtype: torch.dtype, chunk: int | None = None) -> Matcher:
    """A matcher of a copy of the network in another precision.

    ``chunk``: pairs scored at once; None for the matcher's default.
    """
    return Matcher(copy.deepcopy(network).set_precision(dtype), "0" * 64, chunk=chunk)


def device_of(network: Network) -> torch.device:
    """Returns the device that a network computes on."""
    return next(network.parameters()).device


def random_tokens(network: Network, count: int, seed: int, modality: Modality = "photo") -> Tokens:
    """Random tokens like those from an encoder's last normalisation, as many as the network compares of a picture."""
    config = network.config
    n = config.token_count(modality)
    features = torch.randn(count, n, config.width, generator=torch.Generator().manual_seed(seed))
    tokens = Tokens(F.layer_norm(features, (config.width,)), torch.arange(n - 1).expand(count, -1))
    return tokens.to(device_of(network))


def scoring_ways(released: Network, default: Network, fastest: torch.dtype, *, compiled: bool) -> list[Way]:
    """Ways to score one sketch against photos. Projecting the photos is part of it, as in a search.

    Args:
        fastest: the precision of the default network's further ways.
        compiled: whether to add compiled ways.
    """
    sketch, photos = random_tokens(released, 1, SEED), random_tokens(released, RELEASED_BATCH, SEED + 1)
    ways = [
        Way(
            "released computation",
            "float32",
            RELEASED_BATCH,
            lambda: released_logits(released, sketch.features, photos.features),
        )
    ]
    reduced = REDUCED[device_of(default).type]
    chunk = in_precision(default, fastest).chunk
    for name, network, chunks in (("its shape in this engine", released, 1), (default.config.name, default, 4)):
        one, many = random_tokens(network, 1, SEED), random_tokens(network, chunks * chunk, SEED + 1)
        for dtype in (torch.float32, *reduced):
            ways.append(scoring_way(name, in_precision(network, dtype), one, many))
    if compiled:
        how: dict[str, dict[str, Any]] = {"compiled": {}}
        if device_of(default).type == "cuda":
            how["compiled, CUDA graphs"] = {"mode": "reduce-overhead"}
        for said, options in how.items():
            way = compiled_way(f"{name}, {said}", in_precision(default, fastest), one, many, **options)
            ways += [way] if way else []
    return ways


def compiled_way(name: str, matcher: Matcher, sketch: Tokens, photos: Tokens, **options: Any) -> Way | None:
    """A way whose pairs are scored by a program compiled for their shape.

    None where it cannot be compiled; stderr says why.
    """
    network = as_zse(matcher.network)
    try:
        network.relate = torch.compile(network.relate, dynamic=False, **options)  # type: ignore[method-assign]
        way = scoring_way(name, matcher, sketch, photos)
        way.run()
    except (RuntimeError, OSError) as error:
        print(f"{name}: left out: {str(error).splitlines()[0]}", file=sys.stderr)
        return None
    return way


def scoring_way(name: str, matcher: Matcher, sketch: Tokens, photos: Tokens) -> Way:
    """A way to score by a matcher."""
    return Way(name, named(matcher.dtype), len(photos), lambda: matcher.relation_logits(sketch, photos))


def encoding_ways(released: Network, default: Network, clip: nn.Module, modality: Modality) -> list[Way]:
    """Ways to encode preprocessed pictures: some photos together, or one sketch, of which the default makes variants.

    clip: an image tower for pictures of the released size.
    """

    count = PICTURES if modality == "photo" else 1

    def pictures(network: Network) -> torch.Tensor:
        size, generator = network.config.image_size, torch.Generator().manual_seed(SEED)
        return (torch.rand(count, 3, size, size, generator=generator) * 2 - 1).to(device_of(network))

    def way(dtype: torch.dtype) -> Way:
        matcher = in_precision(default, dtype)
        return Way(default.config.name, named(dtype), count, lambda: matcher.encode(small, modality))

    large, small, reduced = pictures(released), pictures(default), REDUCED[device_of(default).type]
    return [
        Way("released encoder", "float32", count, lambda: released_tokens(released, large)),
        *map(way, (torch.float32, *reduced)),
        Way("CLIP ViT-B/32", "float32", count, lambda: clip(large)),
    ]


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


EPS = 1e-6


def released_tokens(network: Network, images: torch.Tensor) -> torch.Tensor:
    """(b, 3, H, W) -> (b, n, d), without token selection."""
    encoder: Any = network.encoder
    tokenizer = encoder.tokenizer
    patches, learnt = tokenizer.patch(images), tokenizer.learnable.layers(images)
    x = ((patches + learnt) / 2).flatten(2).transpose(1, 2)
    x = torch.cat([encoder.ret.repeat(len(x), 1, 1), x], dim=1) + encoder.position
    for block in encoder.blocks:
        q, k, v = block.attn.qkv(block.norm1(x)).chunk(3, dim=-1)
        x = x + block.attn.proj(attention(q, k, v, block.attn.heads))
        x = x + block.mlp(block.norm2(x))
    tokens: torch.Tensor = encoder.norm(x)
    return tokens


def released_logits(network: Network, sketch: torch.Tensor, photos: torch.Tensor) -> torch.Tensor:
    """Computes relation logits (b,) from the tokens of one sketch (1, n, d) and of b photos (b, n, d)."""
    cross, relation = network.cross, network.relation
    assert cross is not None
    assert isinstance(relation, KernelRelation)
    sketches = sketch.repeat(len(photos), 1, 1)
    seen = updated(cross.sketch, sketches, photos, cross.heads)
    shown = updated(cross.photo, photos, sketches, cross.heads)
    rows, columns = (downsampled(relation, x[:, 1:]) for x in (seen, shown))
    norms = rows.norm(dim=-1)[:, :, None] * columns.norm(dim=-1)[:, None]
    kernel = (rows @ columns.transpose(1, 2) / norms).nan_to_num()
    logits: torch.Tensor = relation.mlp(kernel.flatten(1))
    return logits[:, 0]


def updated(branch: CrossBranch, x: torch.Tensor, other: torch.Tensor, heads: int) -> torch.Tensor:
    """Attention of x (b, n, d) to the keys of the other side, with its own values (a quirk of the released code)."""
    y = x + branch.out(attention(branch.query(x), branch.key(other), branch.value(x), heads))
    y = normed(branch.norm1, y)
    return normed(branch.norm2, y + branch.ffn(y))


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """(b, n, d) each -> (b, n, d)."""
    b, n, d = q.shape
    q, k, v = (x.view(b, n, heads, d // heads).transpose(1, 2) for x in (q, k, v))
    weights = F.softmax(q @ k.transpose(-2, -1) / (d // heads) ** 0.5, dim=-1)
    return (weights @ v).transpose(1, 2).reshape(b, n, d)


def normed(norm: Any, x: torch.Tensor) -> torch.Tensor:
    """a * (x - mean) / (std + eps) + b."""
    mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
    out: torch.Tensor = norm.weight * (x - mean) / (std + EPS) + norm.bias
    return out


def downsampled(relation: KernelRelation, patches: torch.Tensor) -> torch.Tensor:
    """(b, g * g, d), viewed as a map without a transpose -> (b, g * g / 4, width)."""
    b, _, d = patches.shape
    maps: torch.Tensor = relation.downsample(patches.reshape(b, d, relation.grid, relation.grid))
    return maps.flatten(2).transpose(1, 2)


if __name__ == "__main__":
    sys.exit(main())
