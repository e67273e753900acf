"""What ImageNet-1k calls the things that people draw."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from timm.data.imagenet_info import ImageNetInfo

_CLASSES = 1000


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
