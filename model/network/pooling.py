"""Pooled tokens: an image's patch tokens in groups by Ward's clustering, and one token, the mean, for each group.

A pair of images then costs less time, and a photo less space. [Ret] stays as it is.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from model.errors import ModelError
from model.network.config import MOST_GROUPS, Modality
from model.network.tokens import Members, Tokens

_ALL = "all"


@dataclass(frozen=True)
class GroupCounts:
    """How many groups the patch tokens of an image are pooled into.

    Attributes:
        sketch, photo: 1 to MOST_GROUPS; None where each patch keeps its token. An image with no more patches than
            groups keeps its tokens, too.

    Raises:
        ModelError: a number is out of range.
    """

    sketch: int | None = None
    photo: int | None = None

    def __post_init__(self) -> None:
        if any(count is not None and not 1 <= count <= MOST_GROUPS for count in (self.sketch, self.photo)):
            raise ModelError(f"the patch tokens of an image are pooled into 1 to {MOST_GROUPS} groups")

    def __str__(self) -> str:
        return "/".join(_ALL if count is None else str(count) for count in (self.sketch, self.photo))

    def of(self, modality: Modality) -> int | None:
        """The number for one modality."""
        return self.sketch if modality == "sketch" else self.photo

    @staticmethod
    def parse(text: str) -> GroupCounts:
        """From "N" (for both) or "SKETCH/PHOTO", each a number or "all". Raises ModelError for another text."""
        parts = text.split("/")
        if not 1 <= len(parts) <= 2 or not all(part == _ALL or (part.isascii() and part.isdigit()) for part in parts):
            raise ModelError(f'tokens are N or SKETCH/PHOTO, each a number of groups or "{_ALL}", not {text!r}')
        counts = [None if part == _ALL else int(part) for part in parts]
        return GroupCounts(counts[0], counts[-1])


def pooled(tokens: Tokens, count: int | None) -> Tokens:
    """The same images with ``count`` patch tokens each; the tokens as they are where they have no more or it is None.

    The patch tokens of an image are grouped by Ward's clustering of their directions. A group's token is the mean of
    its patches' tokens. Its position is that of the patch that is most like the mean, and ``members`` says which
    patches are in it. The result for an image does not depend on the others. Gradients flow through the means.

    Args:
        tokens: not pooled yet.
    """
    patches = tokens.patches
    k = patches.shape[1]
    if count is None or k <= count:
        return tokens
    # Clustering takes the CPU, and the means are few: on a GPU, atomic sums would round differently in each run.
    on_cpu = patches.cpu()
    groups = [group_patches(directions, count) for directions in _directions(on_cpu.detach())]
    # A product for each image by itself: one of all images may round differently than one of a single image. In the
    # tokens' own precision: the autocast of a training would round the sums to bfloat16.
    with torch.autocast("cpu", enabled=False):
        means = [_sums(image, group.labels, count) for image, group in zip(on_cpu, groups, strict=True)]
    labels, middles = (torch.stack(parts).to(patches.device) for parts in zip(*groups, strict=True))
    sizes = torch.stack([group.labels.bincount(minlength=count) for group in groups]).unsqueeze(-1)
    features = torch.cat([tokens.features[:, :1], (torch.stack(means) / sizes).to(patches)], dim=1)
    return Tokens(features, tokens.positions.gather(1, middles), Members(tokens.positions, labels))


class PatchGroups(NamedTuple):
    """The groups of one image's k patches, numbered in the order of their middles.

    Attributes:
        labels: (k,) int64, the number of each patch's group.
        middles: (count,) int64, ascending: of each group the patch most like the mean, of equal ones the first.
    """

    labels: torch.Tensor
    middles: torch.Tensor


def group_patches(directions: torch.Tensor, count: int) -> PatchGroups:
    """Group the patches of one image into ``count`` groups, by the directions of their tokens.

    Ward's clustering begins with each patch by itself, and merges again and again the two groups whose merging adds
    least to the squared distances of the directions from their group's mean.

    Args:
        directions: (k, d) float64 on the CPU, of unit length. count: 1 to k - 1.
    """
    # Importing it takes a second, which only those who pool should wait for.
    from scipy.cluster.hierarchy import linkage

    k = len(directions)
    # PyTorch's product and not NumPy's, whose threads would compete with those that encode.
    squares = 2 - 2 * (directions @ directions.T)
    distances = squares.clamp_(min=0).sqrt_()[_above_diagonal(k)].numpy()
    merges = linkage(distances, "ward")[: k - count, :2].astype(np.int64)
    labels = _labels(merges.tolist(), k)
    # Two patches are equally like their mean: rounding must not decide between them.
    likeness = (directions * _sums(directions, labels, count)[labels]).sum(dim=1).round(decimals=9)
    # The patches of each group beside each other, the one most like the mean first, of equal ones the first patch.
    order = likeness.argsort(descending=True, stable=True)
    order = order[labels[order].argsort(stable=True)]
    firsts = order[torch.searchsorted(labels[order], torch.arange(count))]
    middles, numbers = firsts.sort()
    return PatchGroups(numbers.argsort()[labels], middles)


def _directions(patches: torch.Tensor) -> torch.Tensor:
    """The tokens (b, k, d) at unit length, float64; zero where a token is zero or has values that are not finite."""
    patches = patches.double()
    lengths: torch.Tensor = patches.norm(dim=2, keepdim=True)
    return (patches / lengths.clamp(min=1e-12)).nan_to_num()


def _sums(patches: torch.Tensor, labels: torch.Tensor, count: int) -> torch.Tensor:
    """(count, d): the sum of each group of the patches (k, d)."""
    chosen = torch.zeros(count, len(patches), dtype=patches.dtype)
    chosen[labels, torch.arange(len(patches))] = 1
    sums: torch.Tensor = chosen @ patches
    return sums


def _labels(merges: Sequence[Sequence[int]], k: int) -> torch.Tensor:
    """(k,) int64: the group of each of k patches after these merges; the n-th one makes group k + n of two others."""
    groups = {patch: [patch] for patch in range(k)}
    for number, (first, second) in enumerate(merges, start=k):
        groups[number] = groups.pop(first) + groups.pop(second)
    labels = [0] * k
    for label, patches in enumerate(groups.values()):
        for patch in patches:
            labels[patch] = label
    return torch.tensor(labels)


@functools.cache
def _above_diagonal(k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and columns of a (k, k) matrix above its diagonal, row by row, as SciPy takes distances."""
    rows, columns = torch.triu_indices(k, k, 1)
    return rows, columns
