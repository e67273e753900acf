"""The pretrained ViT as a teacher: its features and class probabilities of photos, and the names of its classes."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from timm.data.imagenet_info import ImageNetInfo
from tqdm import tqdm

from model.datasets import normalised
from model.errors import ModelError
from model.images import Preprocessing
from model.network import ModelConfig, from_backbone, multiplies_bf16

# Classes of ImageNet-1k.
_CLASSES = 1000


@dataclass(frozen=True)
class Teacher:
    """The outputs of the pretrained ViT for photos.

    Attributes:
        features: (n, d) float32, L2-normalised class tokens.
        labels: (n,) int64, each photo's training class.
        probabilities: (n, k) float32, over the k classes that it was pretrained on; k = 0 for a ViT without classifier.
        head_weight, head_bias: (k, d) and (k,), its classifier.
    """

    features: torch.Tensor
    labels: torch.Tensor
    probabilities: torch.Tensor
    head_weight: torch.Tensor
    head_bias: torch.Tensor

    def class_means(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows for photos (n, m) -> rows for classes (classes, m): the mean over each class's photos."""
        counts = torch.bincount(self.labels)
        sums = torch.zeros(len(counts), rows.shape[1], dtype=rows.dtype).index_add(0, self.labels, rows)
        return sums / counts[:, None]


def vit_config(weights: dict[str, torch.Tensor]) -> ModelConfig:
    """The encoder of a ViT with heads that are 64 wide: no learnable tokenizer, and nothing after the encoder.

    weights: under timm's key names. Raises ModelError where they are not those of a plain ViT with 16x16 patches.
    """
    try:
        _, tokens, width = weights["pos_embed"].shape
        hidden = weights["blocks.0.mlp.fc1.weight"].shape[0]
    except (KeyError, ValueError) as error:
        raise ModelError(f"this is no plain ViT: {error}") from error
    return ModelConfig(
        name=f"ViT of {width} dims",
        width=width,
        depth=sum(name.startswith("blocks.") and name.endswith(".norm1.weight") for name in weights),
        heads=max(1, width // 64),
        cross_heads=1,
        image_size=16 * math.isqrt(tokens - 1),
        mlp_ratio=hidden / width,
        tokenizer="plain",
        select_after=(),
        cross_attention=False,
        relation="best-match",
    )


@torch.no_grad()
def ask_teacher(
    weights: dict[str, torch.Tensor], config: ModelConfig, pixels: torch.Tensor, labels: torch.Tensor
) -> Teacher:
    """Runs the pretrained ViT (timm's key names) over photos, at 224 pixels and without selection.

    pixels: (n, 3, 224, 224) uint8; labels: (n,) int64. Raises ModelError if the ViT does not fit ``config``.
    """
    whole = dataclasses.replace(config, encoder="vit", image_size=pixels.shape[-1], keep_sketch=1.0, keep_photo=1.0)
    dtype = torch.bfloat16 if multiplies_bf16() else torch.float32
    encoder = from_backbone(whole, weights).encoder.eval().to(dtype)
    preprocessing = Preprocessing(mean=config.mean, std=config.std)
    parts = [
        encoder(normalised(some, preprocessing).to(dtype), "photo").ret.float()
        for some in tqdm(torch.split(pixels, 32), desc="asking the teacher", unit="batch", disable=None)
    ]
    tokens = torch.cat(parts)
    if "head.weight" in weights:
        head_weight, head_bias = weights["head.weight"].float(), weights["head.bias"].float()
    else:
        head_weight, head_bias = torch.zeros(0, config.width), torch.zeros(0)
    if head_weight.shape[1] != config.width:
        raise ModelError("the backbone's classifier does not fit its width")
    probabilities = F.linear(tokens, head_weight, head_bias).softmax(dim=1) if len(head_bias) else tokens[:, :0]
    return Teacher(F.normalize(tokens, dim=1), labels, probabilities, head_weight, head_bias)


@cache
def imagenet_names() -> tuple[tuple[str, ...], ...]:
    """The names of each class of ImageNet-1k, such as ("goldfish", "Carassius auratus"), in the classifier's order."""
    info = ImageNetInfo()
    described = (info.index_to_description(index) for index in range(_CLASSES))
    return tuple(tuple(name.strip() for name in description.split(",")) for description in described)
