"""Holds encoded pictures, as retrieval token and patch tokens; makes variants of a sketch, and averages their [Ret]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]
Numbers: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Tokens:
    """A batch of encoded pictures of one modality.

    Attributes:
        features: (b, n, d) floating point; row 0 is [Ret], rows 1..n-1 are patch tokens.
        positions: (b, n-1) integers, ascending in each row: the cell of each patch token, counted row by row.
        summary: (b, e), a two-sided encoder's summary of sketches, from which guesses are made: it has more than [Ret]
            keeps. None for photos, and for other encoders.
    """

    features: NDArray[Any]
    positions: NDArray[Any]
    summary: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        if self.features.ndim != 3 or self.positions.shape != (self.features.shape[0], self.features.shape[1] - 1):
            raise ValueError(
                f"tokens need features (b, n, d) and positions (b, n-1), not {self.features.shape} "
                f"and {self.positions.shape}"
            )

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, rows: slice | NDArray[Any] | Sequence[int]) -> Tokens:
        return Tokens(self.features[rows], self.positions[rows], None if self.summary is None else self.summary[rows])

    @property
    def ret(self) -> NDArray[Any]:
        """(b, d): the retrieval token of each picture, not normalised."""
        return self.features[:, 0]

    @property
    def guessed_from(self) -> NDArray[Any]:
        return self.ret if self.summary is None else self.summary

    @property
    def patches(self) -> NDArray[Any]:
        """(b, n-1, d): the patch tokens."""
        return self.features[:, 1:]

    @property
    def without_patches(self) -> Tokens:
        """Returns the part that comparing by [Ret] reads."""
        return Tokens(self.features[:, :1], self.positions[:, :0], self.summary)

    @staticmethod
    def of_ret(ret: NDArray[Any]) -> Tokens:
        """Makes tokens of [Ret] (b, d) alone, all that the method "ret" reads and that one-vector networks give."""
        return Tokens(ret[:, None], np.empty((len(ret), 0), np.int64))

    @staticmethod
    def cat(parts: Sequence[Tokens]) -> Tokens:
        """Joins pictures with the same number of tokens."""
        summaries = [part.summary for part in parts if part.summary is not None]
        return Tokens(
            np.concatenate([part.features for part in parts]),
            np.concatenate([part.positions for part in parts]),
            np.concatenate(summaries) if summaries else None,
        )


def unit(vectors: NDArray[Any]) -> Floats:
    """Scales vectors along the last dimension to length 1, in float32; those shorter than 1e-12 stay near zero."""
    values = np.asarray(vectors, np.float32)
    scaled: Floats = values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), np.float32(1e-12))
    return scaled


#: The most variants of a sketch: one of each kind.
MAX_VARIANTS = 3
_LARGER = 1.15
_TURN = math.radians(10)
_PEN = 3
_Map = tuple[float, float, float, float]


def sketch_variants(sketch: Floats, count: int) -> Floats:
    """Makes the first ``count`` variants (count, 3, H, W) of a prepared sketch (3, H, W); from 1 to MAX_VARIANTS.

    The first is the sketch itself; the second larger by 15%, with what is then outside cut off; the third mirrored,
    drawn with a thicker pen and turned by 10 degrees.
    """
    # Sampling gives zeros outside. So paper, the greatest value of each channel, is mapped to zero meanwhile.
    paper = sketch.max(axis=(1, 2), keepdims=True)
    ink = sketch - paper
    variants = [sketch]
    if count > 1:
        variants.append(_moved(ink, (1 / _LARGER, 0.0, 0.0, 1 / _LARGER)) + paper)
    if count > 2:
        cos, sin = math.cos(_TURN), math.sin(_TURN)
        variants.append(_moved(_thickened(ink[..., ::-1]), (cos, sin, -sin, cos)) + paper)
    return np.stack(variants)


def averaged_variants(variants: Tokens) -> Tokens:
    """Averages the variants of one sketch to a batch of one: the first's tokens with the mean direction of [Ret]."""
    if len(variants) == 1:
        return variants
    first = variants[:1]
    summary = None if variants.summary is None else _mean_direction(variants.summary)
    features = np.concatenate([_mean_direction(variants.ret)[:, None], first.patches], axis=1)
    return Tokens(features, first.positions, summary)


def _mean_direction(vectors: Floats) -> Floats:
    """(v, d) -> (1, d), the mean of the directions, as long as the first vector."""
    mean: Floats = unit(unit(vectors).mean(axis=0, keepdims=True)) * np.linalg.norm(vectors[0])
    return mean


def _thickened(ink: Floats) -> Floats:
    """Takes for each pixel the darkest one of the square around it; ink is below zero."""
    border = _PEN // 2
    around = np.pad(ink, ((0, 0), (border, border), (border, border)))
    rows = np.minimum.reduce([around[:, shift : shift + ink.shape[1]] for shift in range(_PEN)])
    thick: Floats = np.minimum.reduce([rows[:, :, shift : shift + ink.shape[2]] for shift in range(_PEN)])
    return thick


def _moved(ink: Floats, to_source: _Map) -> Floats:
    """Moves ink (3, H, W) by a linear map from the result's coordinates, -1 to 1, to the source's."""
    moved = np.zeros((len(ink), ink[0].size), np.float32)
    flat = np.ascontiguousarray(ink).reshape(len(ink), -1)
    for pixels, weights in _sampling(ink.shape[1], ink.shape[2], to_source):
        moved += flat[:, pixels] * weights
    return moved.reshape(ink.shape)


@lru_cache(maxsize=8)
def _sampling(height: int, width: int, to_source: _Map) -> tuple[tuple[NDArray[np.int64], Floats], ...]:
    """Finds the four pixels that each pixel of a moved picture is mixed of, and their weights; 0 outside."""
    a, b, c, d = to_source
    y, x = np.meshgrid((2 * np.arange(height) + 1) / height - 1, (2 * np.arange(width) + 1) / width - 1, indexing="ij")
    across, down = ((a * x + b * y + 1) * width - 1) / 2, ((c * x + d * y + 1) * height - 1) / 2
    left, top = np.floor(across).astype(np.int64), np.floor(down).astype(np.int64)
    taps = []
    for row, of_row in ((top, 1 - (down - top)), (top + 1, down - top)):
        for column, of_column in ((left, 1 - (across - left)), (left + 1, across - left)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            pixels = np.where(inside, row * width + column, 0).ravel()
            taps.append((pixels, (inside * of_row * of_column).ravel().astype(np.float32)))
    return tuple(taps)
