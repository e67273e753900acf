"""The fastest precision on this machine that changes no relation score by more than a hundredth."""

from __future__ import annotations

import copy
import math
import time
from functools import cache

import torch
import torch.nn.functional as F

from model.network.ret_network import RetNetwork
from model.network.zse import Network

TOLERANCE = 1e-2
# Rows and width of the product by which precisions are compared, and how often.
_LINEAR, _TURNS = (256, 384), 9
_PRECISIONS = (torch.float32, torch.bfloat16)


def fastest_dtype(network: RetNetwork, device: torch.device) -> torch.dtype:
    """float16 on CUDA, bfloat16 on a CPU that is faster with it, else float32.

    The reduced precision is chosen only where the relation scores of the probe pictures stay within TOLERANCE of those
    in float32. ``network`` is in float32 and on ``device``; it is not changed.
    """
    if device.type == "cuda":
        candidate = torch.float16
    elif device.type == "cpu" and multiplies_bf16():
        candidate = torch.bfloat16
    else:
        return torch.float32
    if not isinstance(network, Network) or network.cross is None or not network.calibration.relation_trained:
        return torch.float32
    exact = probe_logits(network, device)
    # The logits are shifted to where the sigmoid is steepest: elsewhere it would hide their differences.
    middle = exact.mean()
    other = probe_logits(copy.deepcopy(network).set_precision(candidate), device)
    close = ((other - middle).sigmoid() - (exact - middle).sigmoid()).abs().amax() <= TOLERANCE
    return candidate if bool(close) else torch.float32


@cache
def multiplies_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 natively, and faster than float32; False where PyTorch cannot tell.

    It is measured once in a process, in some 20 ms: an AMD Zen 4 takes half the time of float32, and an Intel CPU whose
    AMX a virtual machine hides nearly twice the time.
    """
    tell = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(tell is not None and tell()) and _faster_in_bf16()


@torch.inference_mode()
def _faster_in_bf16() -> bool:
    """Whether the linear layer of a ViT is. Both take turns, and the least times count: other work disturbs both."""
    rows, width = _LINEAR
    ways = [(torch.ones(rows, width, dtype=dtype), torch.ones(width, width, dtype=dtype)) for dtype in _PRECISIONS]
    least = [math.inf] * len(ways)
    threads = torch.get_num_threads()
    # Several threads would wait for each other wherever the machine is busy.
    torch.set_num_threads(1)
    try:
        for _ in range(_TURNS):
            for number, (x, weight) in enumerate(ways):
                began = time.perf_counter()
                F.linear(x, weight)
                least[number] = min(least[number], time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)
    return least[1] < least[0]


@torch.inference_mode()
def probe_logits(network: Network, device: torch.device) -> torch.Tensor:
    """(4, 4) on the CPU, float32: relation logits of all pairs of synthetic sketches and photos."""
    size = network.config.image_size
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(8, 3, size // 16, size // 16, generator=generator) * 2 - 1
    images = coarse.repeat_interleave(16, 2).repeat_interleave(16, 3).to(device)
    sketch = network.project(network.encode(images[:4], "sketch"), "sketch")
    photo = network.project(network.encode(images[4:], "photo"), "photo")
    return torch.stack([network.relate(sketch.rows(slice(row, row + 1)), photo) for row in range(4)]).cpu()
