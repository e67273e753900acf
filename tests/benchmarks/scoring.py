"""What a score and an encoded picture cost, compared with the released computation in one run; `make bench`.

The released network's shape has random weights here, because time does not depend on them. The default network is
another one, and much smaller; its rows say what that saves. All ways take turns, and the least time of all rounds
counts, so that other work of the machine slows all of them alike. The released computation is written in plain eager
PyTorch at the end of this module. It shares only the weights with a network; tests check that its results are equal.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from sketch_search.model.engine import Floats, Modality, NetworkConfig, Tokens
from sketch_search.model.matcher import Matcher
from sketch_search.model.torch.checkpoint import released_config
from sketch_search.model.torch.relation import CrossBranch, KernelRelation
from sketch_search.model.torch.zse import Network
from tests.benchmarks.command import Command, by_matcher
from tests.benchmarks.results import Result, Row

# The released search scores one sketch against so many photos at once.
RELEASED_BATCH = 16
PICTURES, GPU_PICTURES = 16, 256
SEED = 0


@dataclass(frozen=True)
class Way:
    """A way to compute ``count`` pairs or pictures. In a list of ways, all others are compared with the first."""

    name: str
    dtype: str
    count: int
    run: Callable[[], object]


def main(arguments: Sequence[str] | None = None) -> int:
    command = Command("scoring", __doc__, device=True)
    command.begin(arguments)
    default = command.load()
    released, clip = released_network().to(default.device), clip_tower().to(default.device)
    command.save(measure(command, released, default, clip))
    return 0


@torch.inference_mode()
def measure(command: Command, released: Network, default: Matcher, clip: nn.Module) -> Result:
    rounds = 2 if command.options.quick else 15
    rows = measured("a pair", scoring_ways(released, default), rounds)
    for modality in ("photo", "sketch"):
        rows += measured(f"a {modality}", encoding_ways(released, default, clip, modality), min(rounds, 5))
    if default.device != "cpu":
        return command.result("Scoring on a GPU", by_matcher(default), rows=rows)
    return command.result("Scoring", by_matcher(default), rows=rows)


def measured(part: str, ways: Sequence[Way], rounds: int) -> list[Row]:
    """A row for each way, the least of so many rounds after one that is not counted; in each, all take turns."""
    taken: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds + 1):
        for way, times in zip(ways, taken, strict=True):
            begun = time.perf_counter()
            way.run()
            if torch.cuda.is_available():
                # A GPU computes after the call has returned.
                torch.cuda.synchronize()
            times.append((time.perf_counter() - begun) / way.count)
    each = [min(times[1:]) for times in taken]
    return [
        {"": part, "way": f"{way.name}, {way.dtype}", "microseconds": seconds * 1e6, "times faster": each[0] / seconds}
        for way, seconds in zip(ways, each, strict=True)
    ]


def random_tokens(config: NetworkConfig, count: int, seed: int) -> Tokens:
    """Random tokens like those from an encoder's last normalisation, as many as the network compares of a picture."""
    n = config.token_count("photo")
    features = torch.randn(count, n, config.width, generator=torch.Generator().manual_seed(seed))
    return Tokens(F.layer_norm(features, (config.width,)).numpy(), np.tile(np.arange(n - 1), (count, 1)))


def scoring_ways(released: Network, default: Matcher) -> list[Way]:
    """Ways to score one sketch against photos. Projecting the photos is part of it, as in a search."""
    device = next(released.parameters()).device
    drawn, shown = (
        torch.from_numpy(random_tokens(released.config, count, SEED + count).features).to(device)
        for count in (1, RELEASED_BATCH)
    )
    one, many = (random_tokens(default.config, count, SEED + count) for count in (1, 4 * default.chunk))
    return [
        Way("released computation", "float32", RELEASED_BATCH, lambda: released_logits(released, drawn, shown)),
        Way(default.config.name, default.dtype, len(many), lambda: default.relation_logits(one, many)),
    ]


def encoding_ways(released: Network, default: Matcher, clip: nn.Module, modality: Modality) -> list[Way]:
    """Ways to encode preprocessed pictures: some photos, or one sketch, of which the default makes variants."""
    count = (PICTURES if default.device == "cpu" else GPU_PICTURES) if modality == "photo" else 1

    def pictures(size: int) -> Floats:
        return np.random.default_rng(SEED).random((count, 3, size, size), np.float32) * 2 - 1

    large = torch.from_numpy(pictures(released.config.image_size)).to(next(released.parameters()).device)
    small = pictures(default.config.image_size)

    def encode() -> None:
        default.kept.clear()
        default.encode(small, modality)

    return [
        Way("released encoder", "float32", count, lambda: released_tokens(released, large)),
        Way(default.config.name, default.dtype, count, encode),
        Way("CLIP ViT-B/32", "float32", count, lambda: clip(large)),
    ]


def released_network() -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return Network(released_config()).requires_grad_(False).eval()


def clip_tower() -> nn.Module:
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
        x = x + block.attn.proj(attention(q, k, v, block.attn.num_heads))
        x = x + block.mlp(block.norm2(x))
    return encoder.norm(x)


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
    return norm.weight * (x - mean) / (std + EPS) + norm.bias


def downsampled(relation: KernelRelation, patches: torch.Tensor) -> torch.Tensor:
    """(b, g * g, d), viewed as a map without a transpose -> (b, g * g / 4, width)."""
    b, _, d = patches.shape
    maps: torch.Tensor = relation.downsample(patches.reshape(b, d, relation.grid, relation.grid))
    return maps.flatten(2).transpose(1, 2)


if __name__ == "__main__":
    sys.exit(main())
