"""What the pretrained network says of the training photos, kept between runs."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from model.network import AnchorConfig, build_vit, load_vit, multiplies_bf16
from model.papers.training_set import sized
from model.training import digest

_AT_ONCE = 32


@torch.no_grad()
def pretrained_features(
    config: AnchorConfig, weights: dict[str, torch.Tensor], pixels: torch.Tensor, key: str, cache: Path
) -> torch.Tensor:
    """(n, d) float32, L2-normalised: the class token of the pretrained ViT for each photo.

    Args:
        config: which ViT, at which input size.
        weights: its weights, under timm's key names.
        pixels: (n, 3, H, W) uint8.
        key: digest of the pixels.
        cache: a folder where features of the same ViT and pixels are found again.
    """
    shape = repr((config.backbone, config.sizes, config.image_size, config.mean, config.std))
    path = cache / f"{digest(key + shape, weights)[:32]}.safetensors"
    if path.exists():
        return load_file(path)["features"]
    vit = build_vit(config.backbone, config.image_size, config.sizes)
    load_vit(vit, weights)
    dtype = torch.bfloat16 if multiplies_bf16() else torch.float32
    vit.eval().to(dtype)
    starts = tqdm(range(0, len(pixels), _AT_ONCE), desc="asking the pretrained ViT", unit="batch", disable=None)
    parts = [vit(sized(pixels[start : start + _AT_ONCE].float() / 255, config).to(dtype)).float() for start in starts]
    features = F.normalize(torch.cat(parts), dim=1)
    cache.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    save_file({"features": features}, partial)
    os.replace(partial, path)
    return features
