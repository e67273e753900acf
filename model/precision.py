"""Which precision is the fastest here without moving a relation score or a distance by more than a hundredth."""

from __future__ import annotations

import copy

import torch

from model.network import Network

TOLERANCE = 1e-2


def fastest_dtype(network: Network, device: torch.device) -> torch.dtype:
    """float16 on CUDA, bfloat16 on a CPU that multiplies it natively, where scores stay within TOLERANCE of
    float32's on the probe pictures; float32 otherwise.

    network: in float32, on ``device``; left as it was.
    """
    if device.type == "cuda":
        candidate = torch.float16
    elif device.type == "cpu" and multiplies_bf16():
        candidate = torch.bfloat16
    else:
        return torch.float32
    exact = probe(network, device, torch.float32)
    small = probe(copy.deepcopy(network).set_precision(candidate), device, candidate)
    # Scores are compared where the sigmoid is steepest: far out on it any difference would look small.
    middle = exact[1].mean()
    differences = [small[0] - exact[0], (small[1] - middle).sigmoid() - (exact[1] - middle).sigmoid()]
    return candidate if torch.stack(differences).abs().amax() <= TOLERANCE else torch.float32


def multiplies_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 natively; False where torch does not tell."""
    tell = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(tell is not None and tell())


@torch.inference_mode()
def probe(network: Network, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """(2, 4) on the CPU, float32: [Ret] distances and, where trained, relation logits of four synthetic pairs."""
    size = network.config.image_size
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(8, 3, size // 16, size // 16, generator=generator) * 2 - 1
    images = coarse.repeat_interleave(16, 2).repeat_interleave(16, 3).to(device, dtype)
    sketch, photo = network.encode(images[:4], "sketch"), network.encode(images[4:], "photo")
    normal = torch.nn.functional.normalize
    distance = (normal(sketch.ret.float(), dim=-1) - normal(photo.ret.float(), dim=-1)).norm(dim=-1)
    relation = torch.zeros_like(distance)
    if set(network.config.methods) - {"ret"}:
        relation = network.relate(network.project(sketch, "sketch"), network.project(photo, "photo"))
    return torch.stack([distance, relation]).cpu()
