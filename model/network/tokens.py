"""Holds encoded images, as retrieval token and patch tokens; makes variants of a sketch, and averages their [Ret]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Tokens:
    """A batch of encoded images of one modality.

    Attributes:
        features: (b, n, d) floating point; row 0 is [Ret], rows 1..n-1 are patch tokens.
        positions: (b, n-1) int64, strictly ascending in each row; patch token i+1 sits at cell ``positions[:, i]``
            of the patch grid, counted row by row from the top left.
        summary: (b, e), a two-sided encoder's summary of whole sketches, from which guesses are made: it has more than
            [Ret] keeps. None for photos, and for other encoders.
    """

    features: torch.Tensor
    positions: torch.Tensor
    summary: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if self.features.ndim != 3 or self.positions.shape != (self.features.shape[0], self.features.shape[1] - 1):
            raise ValueError(
                f"tokens need features (b, n, d) and positions (b, n-1), not {tuple(self.features.shape)} "
                f"and {tuple(self.positions.shape)}"
            )

    def __len__(self) -> int:
        return self.features.shape[0]

    def __getitem__(self, rows: slice | torch.Tensor | Sequence[int]) -> Tokens:
        """Returns the images at ``rows``, in this order; the result is a batch, too."""
        return Tokens(self.features[rows], self.positions[rows], None if self.summary is None else self.summary[rows])

    @property
    def ret(self) -> torch.Tensor:
        """(b, d): the retrieval token of each image, not normalised."""
        return self.features[:, 0]

    @property
    def guessed_from(self) -> torch.Tensor:
        """(b, e): the summaries, or [Ret] if the encoder gives no summaries."""
        return self.ret if self.summary is None else self.summary

    @property
    def patches(self) -> torch.Tensor:
        """(b, n-1, d): the patch tokens."""
        return self.features[:, 1:]

    @property
    def without_patches(self) -> Tokens:
        """Returns the part that comparing by [Ret] reads."""
        return Tokens(self.features[:, :1], self.positions[:, :0], self.summary)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Tokens:
        """Moves the tokens to another device or precision; positions stay int64."""
        summary = None if self.summary is None else self.summary.to(device=device, dtype=dtype)
        return Tokens(self.features.to(device=device, dtype=dtype), self.positions.to(device=device), summary)

    @staticmethod
    def of_ret(ret: torch.Tensor) -> Tokens:
        """Makes tokens with n = 1 from retrieval tokens (b, d).

        This is all that the method "ret" reads, and all that a network with one global vector gives.
        """
        return Tokens(ret.unsqueeze(1), torch.empty(len(ret), 0, dtype=torch.int64, device=ret.device))

    @staticmethod
    def cat(parts: Sequence[Tokens]) -> Tokens:
        """Joins all images of ``parts`` in order. Every part must keep the same number of tokens."""
        summaries = [p.summary for p in parts if p.summary is not None]
        summary = torch.cat(summaries) if summaries else None
        return Tokens(torch.cat([p.features for p in parts]), torch.cat([p.positions for p in parts]), summary)


#: The most variants of a sketch: one of each kind.
MOST_VARIANTS = 3
_LARGER = 1.15
_TURN = math.radians(10)
_PEN = 3


def sketch_variants(sketch: torch.Tensor, count: int) -> torch.Tensor:
    """Makes the first ``count`` variants (count, 3, H, W) of a prepared sketch (1, 3, H, W); from 1 to MOST_VARIANTS.

    The first is the sketch itself. The second is larger by 15%; the part that is then outside, some 2% of a long sketch
    at each end, is cut off. The third is mirrored, drawn with a thicker pen and turned by 10 degrees.
    """
    # Sampling gives zeros outside. So paper, the greatest value of each channel, is mapped to zero meanwhile.
    paper = sketch.amax(dim=(2, 3), keepdim=True)
    ink = sketch - paper
    variants = [sketch]
    if count > 1:
        variants.append(_moved(ink, [[1 / _LARGER, 0.0, 0.0], [0.0, 1 / _LARGER, 0.0]]) + paper)
    if count > 2:
        cos, sin = math.cos(_TURN), math.sin(_TURN)
        thick = -F.max_pool2d(-ink.flip(-1), _PEN, stride=1, padding=_PEN // 2)
        variants.append(_moved(thick, [[cos, sin, 0.0], [-sin, cos, 0.0]]) + paper)
    return torch.cat(variants)


def averaged_variants(variants: Tokens) -> Tokens:
    """Averages the variants of one sketch: returns a batch of one, the tokens of the first with the mean [Ret] of all.

    The directions of [Ret] and of the summary are averaged; both keep the length of the first. A sketch without further
    variants stays as it is, bit for bit.
    """
    if len(variants) == 1:
        return variants
    first = variants[:1]
    summary = None if variants.summary is None else _mean_direction(variants.summary)
    ret = _mean_direction(variants.ret)
    return Tokens(torch.cat([ret.unsqueeze(1), first.patches], dim=1), first.positions, summary)


def _mean_direction(vectors: torch.Tensor) -> torch.Tensor:
    """Computes the mean of the directions of vectors (v, d) -> (1, d), as long as the first vector."""
    mean = F.normalize(vectors, dim=-1).mean(dim=0, keepdim=True)
    length: torch.Tensor = vectors[:1].norm(dim=-1, keepdim=True)
    return F.normalize(mean, dim=-1) * length


def _moved(ink: torch.Tensor, to_source: list[list[float]]) -> torch.Tensor:
    """Moves ink (1, 3, H, W) by an affine map, given from the result's coordinates (-1 to 1) to the source's."""
    matrix = torch.tensor([to_source], dtype=ink.dtype, device=ink.device)
    grid = F.affine_grid(matrix, list(ink.shape), align_corners=False)
    return F.grid_sample(ink, grid, padding_mode="zeros", align_corners=False)
