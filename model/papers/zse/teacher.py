"""The pretrained ViT as a teacher: its features and class probabilities of the training photos, and class names."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

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
    """The outputs of the pretrained ViT for the training photos.

    Attributes:
        features: (n, d) float32, L2-normalised class tokens.
        labels: (n,) int64, each photo's training class, -1 for a photo of none.
        probabilities: (n, k) float32, over the k classes that it was pretrained on; k = 0 for a ViT without classifier.
        head_weight, head_bias: (k, d) and (k,), its classifier.
    """

    features: torch.Tensor
    labels: torch.Tensor
    probabilities: torch.Tensor
    head_weight: torch.Tensor
    head_bias: torch.Tensor

    @property
    def classes(self) -> int:
        """The number of training classes."""
        return int(self.labels.max()) + 1

    @cached_property
    def labelled(self) -> torch.Tensor:
        """(l,) int64: the photos of training classes."""
        return torch.nonzero(self.labels >= 0).flatten()

    def class_means(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows for photos (n, m) -> rows for classes (classes, m): the mean over each class's photos."""
        known = self.labels[self.labelled]
        sums = torch.zeros(self.classes, rows.shape[1]).index_add(0, known, rows[self.labelled])
        return sums / torch.bincount(known, minlength=self.classes)[:, None]


@torch.no_grad()
def ask_teacher(
    weights: dict[str, torch.Tensor], config: ModelConfig, pixels: torch.Tensor, labels: torch.Tensor
) -> Teacher:
    """Runs the pretrained ViT (timm's key names) over all training photos, at 224 pixels and without selection.

    pixels: (n, 3, 224, 224) uint8; labels: (n,) int64, -1 for none.
    Raises ModelError if the ViT does not fit ``config``.
    """
    whole = dataclasses.replace(
        config, encoder="vit", image_size=pixels.shape[-1], keep_sketch=1.0, keep_photo=1.0, keep_cross=1.0
    )
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


def named_targets(labels: Sequence[str], classes: int) -> torch.Tensor:
    """(n, classes) float32: for each class name, equal probabilities of the ImageNet classes that have this name.

    ImageNet gives each class several names, such as "goldfish, Carassius auratus". A row is zero where none is the
    name asked for, and all rows are where ``classes`` is not the number of classes of ImageNet-1k.
    """
    targets = torch.zeros(len(labels), classes)
    if classes != _CLASSES:
        return targets
    called: dict[str, list[int]] = {}
    for index, names in enumerate(imagenet_names()):
        for name in names:
            called.setdefault(name.lower(), []).append(index)
    for row, label in enumerate(labels):
        found = called.get(label.replace("_", " ").lower(), [])
        targets[row, found] = 1 / max(1, len(found))
    return targets
