"""The fastest precision on this machine that changes no relation score by more than a hundredth."""

from __future__ import annotations

import copy
import math
import time
from functools import cache

import torch
import torch.nn.functional as F

from model.network.config import Modality, ModelConfig
from model.network.ret_network import RetNetwork
from model.network.tokens import Tokens
from model.network.two_sided import TwoSidedEncoder
from model.network.zse import Network

TOLERANCE = 1e-2
# Rows and width of the product by which precisions are compared, and how often.
_LINEAR, _TURNS = (256, 384), 9
_PRECISIONS = (torch.float32, torch.bfloat16)


def fastest_dtype(network: RetNetwork, device: torch.device) -> torch.dtype:
    """float16 on CUDA, bfloat16 on a CPU that is faster with it, else float32.

    The reduced precision is chosen only where relation scores of probes stay within TOLERANCE of those in float32. A
    two-sided encoder takes it in any case: it selects tokens at its end alone. ``network`` is in float32 and on
    ``device``; it is not changed.
    """
    if device.type == "cuda":
        candidate = torch.float16
    elif device.type == "cpu" and multiplies_bf16():
        candidate = torch.bfloat16
    else:
        return torch.float32
    if not isinstance(network, Network) or network.cross is None:
        return torch.float32
    if not network.calibration.relation_trained:
        return candidate if isinstance(network.encoder, TwoSidedEncoder) else torch.float32
    exact = probe_logits(network, device)
    # The logits are shifted to where the sigmoid is steepest: elsewhere it would hide their differences.
    middle = exact.mean()
    other = probe_logits(copy.deepcopy(network).set_precision(candidate), device)
    close = ((other - middle).sigmoid() - (exact - middle).sigmoid()).abs().amax() <= TOLERANCE
    return candidate if bool(close) else torch.float32


@cache
def multiplies_bf16() -> bool:
    """True if this CPU multiplies bfloat16 natively, and faster than float32; False where PyTorch cannot tell.

    It is measured once in a process, in some 20 ms: an AMD Zen 4 takes half the time of float32, and an Intel CPU whose
    AMX a virtual machine hides nearly twice the time.
    """
    tell = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(tell is not None and tell()) and _faster_in_bf16()


@torch.inference_mode()
def _faster_in_bf16() -> bool:
    """Times the linear layer of a ViT in both. They take turns, and the least times count: other work disturbs both."""
    rows, width = _LINEAR
    ways = [(torch.ones(rows, width, dtype=dtype), torch.ones(width, width, dtype=dtype)) for dtype in _PRECISIONS]
    least = [math.inf] * len(ways)
    for _ in range(_TURNS):
        for number, (x, weight) in enumerate(ways):
            began = time.perf_counter()
            F.linear(x, weight)
            least[number] = min(least[number], time.perf_counter() - began)
    return least[1] < least[0]


@torch.inference_mode()
def probe_logits(network: Network, device: torch.device) -> torch.Tensor:
    """(4, 4) on the CPU, float32: relation logits of all pairs of synthetic sketches and photos.

    For a two-sided network they are tokens, because its encoder, which would take seconds, is no part of the choice.
    """
    generator = torch.Generator().manual_seed(0)
    if isinstance(network.encoder, TwoSidedEncoder):
        sketches, photos = (_probe_tokens(network.config, modality, generator) for modality in ("sketch", "photo"))
    else:
        size = network.config.image_size
        coarse = torch.rand(8, 3, size // 16, size // 16, generator=generator) * 2 - 1
        images = coarse.repeat_interleave(16, 2).repeat_interleave(16, 3).to(device)
        sketches, photos = network.encode(images[:4], "sketch"), network.encode(images[4:], "photo")
    sketch, photo = network.project(sketches.to(device), "sketch"), network.project(photos.to(device), "photo")
    return torch.stack([network.relate(sketch.rows(slice(row, row + 1)), photo) for row in range(4)]).cpu()


def _probe_tokens(config: ModelConfig, modality: Modality, generator: torch.Generator) -> Tokens:
    """Four images' tokens, of length 1 each."""
    count = config.token_count(modality)
    features = F.normalize(torch.randn(4, count, config.width, generator=generator), dim=-1)
    return Tokens(features, torch.arange(count - 1).expand(4, -1))
