"""The ways to compute scores and to encode pictures that are compared; the released one is the first."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from model.checkpoint.conversion import released_config
from model.matcher import Matcher
from model.network.config import Modality
from model.network.layers.cross import Side
from model.network.tokens import Tokens
from model.network.zse import Network
from tests.benchmarks.circumstances import named
from tests.benchmarks.released import released_logits, released_tokens

Part = Literal["score", "encode"]
# The released search scores one sketch against so many photos at once.
RELEASED_BATCH = 16
PICTURES = 16
# Precisions that may be faster than float32, by kind of device.
REDUCED = {"cpu": (torch.bfloat16,), "cuda": (torch.bfloat16, torch.float16)}
SEED = 0


@dataclass(frozen=True)
class Way:
    """One way to compute ``count`` pairs or pictures. The others of a list are compared with its first."""

    part: Part
    name: str
    dtype: str
    count: int
    run: Callable[[], object]


def in_precision(network: Network, dtype: torch.dtype, chunk: int | None = None) -> Matcher:
    """A matcher of the same network in another precision; the encoder is shared, not copied.

    ``chunk``: pairs scored at once; None for the matcher's default.
    """
    other = copy.deepcopy(network, {id(network.encoder): network.encoder})
    return Matcher(other.set_precision(dtype), "0" * 64, chunk=chunk)


def device_of(network: Network) -> torch.device:
    """The device that a network computes on."""
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
            "score",
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
    matcher = in_precision(default, fastest)
    ways.append(scoring_way(f"{name}, photos projected before", matcher, one, matcher.project(many)))
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
    try:
        compiled = torch.compile(matcher.network.relate, dynamic=False, **options)
        matcher.network.relate = compiled  # type: ignore[method-assign]
        way = scoring_way(name, matcher, sketch, photos)
        way.run()
    except (RuntimeError, OSError) as error:
        print(f"{name}: left out: {str(error).splitlines()[0]}", file=sys.stderr)
        return None
    return way


def scoring_way(name: str, matcher: Matcher, sketch: Tokens, photos: Tokens | Side) -> Way:
    """A way to score by a matcher."""
    return Way("score", name, named(matcher.dtype), len(photos), lambda: matcher.relation_logits(sketch, photos))


def encoding_ways(released: Network, default: Network, clip: nn.Module) -> list[Way]:
    """Ways to encode preprocessed pictures. ``clip``: an image tower for pictures of the released size."""

    def pictures(network: Network) -> torch.Tensor:
        size = network.config.image_size
        random = torch.rand(PICTURES, 3, size, size, generator=torch.Generator().manual_seed(SEED)) * 2 - 1
        return random.to(device_of(network))

    large, small = pictures(released), pictures(default)
    matcher = Matcher(default, "0" * 64)
    return [
        Way("encode", "released encoder", "float32", PICTURES, lambda: released_tokens(released, large)),
        Way("encode", default.config.name, "float32", PICTURES, lambda: matcher.encode(small, "photo")),
        Way("encode", "CLIP ViT-B/32", "float32", PICTURES, lambda: clip(large)),
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
