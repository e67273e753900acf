"""The pretrained ViT as a teacher: where photos lie, and what they show, before any training on sketches."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from model.backbone import from_backbone
from model.config import ModelConfig
from model.errors import ModelError
from model.pixels import normalised
from model.preprocess import Preprocessing


@dataclass(frozen=True)
class Teacher:
    """What the pretrained ViT says of the training photos.

    Attributes:
        features: (n, d) float32, L2-normalised class tokens.
        labels: (n,) int64, each photo's training class.
        beliefs: (n, k) float32, its class probabilities over the k classes it was pretrained on; k = 0 without head.
        head_weight, head_bias: (k, d) and (k,), its classifier.
    """

    features: torch.Tensor
    labels: torch.Tensor
    beliefs: torch.Tensor
    head_weight: torch.Tensor
    head_bias: torch.Tensor

    def save(self, path: Path) -> None:
        """Writes the answers, so that a resumed run need not ask again."""
        save_file({name: tensor.contiguous() for name, tensor in vars(self).items()}, path)

    @staticmethod
    def load(path: Path) -> Teacher:
        """Reads them back."""
        return Teacher(**load_file(path))

    @property
    def classes(self) -> int:
        """Training classes."""
        return int(self.labels.max()) + 1

    def class_means(self, rows: torch.Tensor) -> torch.Tensor:
        """(n, m) -> (classes, m): the mean of each class's photos."""
        sums = torch.zeros(self.classes, rows.shape[1]).index_add(0, self.labels, rows)
        return sums / torch.bincount(self.labels, minlength=self.classes)[:, None]


@torch.no_grad()
def ask_teacher(
    weights: dict[str, torch.Tensor], config: ModelConfig, pixels: torch.Tensor, labels: torch.Tensor
) -> Teacher:
    """Runs the pretrained ViT (timm's key names) over all training photos, at 224 pixels and without selection.

    pixels: (n, 3, 224, 224) uint8; labels: (n,) int64. Raises ModelError if the ViT does not fit ``config``.
    """
    whole = dataclasses.replace(config, image_size=pixels.shape[-1], keep_sketch=1.0, keep_photo=1.0, keep_cross=1.0)
    encoder = from_backbone(whole, weights).encoder.eval().to(torch.bfloat16)
    preprocessing = Preprocessing(mean=config.mean, std=config.std)
    parts = [
        encoder(normalised(pixels[start : start + 32], preprocessing).to(torch.bfloat16), "photo").ret.float()
        for start in tqdm(range(0, len(pixels), 32), desc="asking the teacher", unit="batch")
    ]
    tokens = torch.cat(parts)
    if "head.weight" in weights:
        head_weight, head_bias = weights["head.weight"].float(), weights["head.bias"].float()
    else:
        head_weight, head_bias = torch.zeros(0, config.width), torch.zeros(0)
    if head_weight.shape[1] != config.width:
        raise ModelError("the backbone's classifier does not fit its width")
    beliefs = F.linear(tokens, head_weight, head_bias).softmax(dim=1) if len(head_bias) else tokens[:, :0]
    return Teacher(F.normalize(tokens, dim=1), labels, beliefs, head_weight, head_bias)
