"""Defines what a search asks of an engine that runs networks, and the number of threads that compute."""

import math
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sketch_search.model.engine.config import Calibration, Modality, NetworkConfig
from sketch_search.model.engine.knowledge import Prior, Projection, Vocabulary
from sketch_search.model.engine.parting import Parting
from sketch_search.model.engine.tokens import Floats, Numbers, Tokens, unit
from sketch_search.model.errors import ModelError


@dataclass(frozen=True)
class SelfAttention:
    """[Ret]'s attention in each block, (depth, heads, grid, grid), 0 if dropped; kept: (grid, grid) of selections."""

    blocks: Floats
    kept: tuple[NDArray[np.bool_], ...]

    @property
    def heads(self) -> Floats:
        """(heads, grid, grid): the last block, by head (Fig. 5)."""
        return np.asarray(self.blocks[-1])

    @property
    def layers(self) -> Floats:
        """(depth, grid, grid): each block, averaged over its heads; selection keeps the highest (eq. 7)."""
        return np.asarray(self.blocks.mean(axis=1))


@dataclass(frozen=True)
class Observed:
    """An encoded picture and its attention. everything: tokens of all patches; local: (n, d), their local [Ret]."""

    tokens: Tokens
    attention: SelfAttention
    everything: Tokens | None = None
    local: Floats | None = None


@dataclass(frozen=True)
class Matching:
    """How ``model.training.network``'s ``BestMatchRelation`` sums matches: its scale, and each patch token's worth."""

    scale: float
    sketch_worth: Floats
    photo_worth: Floats


@dataclass(frozen=True)
class Aligned:
    """A sketch and a photo after cross-attention.

    sketch_to_photo, photo_to_sketch: (heads, 1 + n_s, 1 + n_p) and (heads, 1 + n_p, 1 + n_s), the attention of all
        tokens, [Ret] first.
    sketch, photo: (n_s, d) and (n_p, d), the patch tokens.
    photo_cells: (n_p,) int64, the cells of the photo's patches, of which cross-attention may select some.
    matching: None for the paper's relation network, which compares blocks of patches.
    lost: (n_s, n_p) float32, how much the relation logit of the paper's network falls if the cosine of two blocks is
        set to zero, at the two most similar patches of these blocks; 0 for other pairs. None if the relation network
        has a ``matching``, or blocks have no place, as in released checkpoints.
    """

    sketch_to_photo: Floats
    photo_to_sketch: Floats
    sketch: Floats
    photo: Floats
    photo_cells: Numbers
    matching: Matching | None = None
    lost: Floats | None = None


def lost_by_blocks(
    kernel: Floats, read: Callable[[Floats], Floats], patches: tuple[Floats, Floats], cells: tuple[Numbers, Numbers]
) -> Floats:
    """Computes ``Aligned.lost``, by setting each pair of m blocks to zero in turn.

    kernel: (m, m), rows sketch. read: makes logits (n,) of kernels (n, m, m). patches, cells: of sketch and photo.
    """
    size, blocks = len(kernel), math.isqrt(len(kernel))
    without = np.repeat(kernel.reshape(1, -1), kernel.size, axis=0)
    np.fill_diagonal(without, 0)
    lost = read(kernel[None])[0] - read(without.reshape(-1, size, size))
    of_sketch, of_photo = (at // (2 * blocks) // 2 * blocks + at % (2 * blocks) // 2 for at in cells)
    pairs = (of_sketch[:, None] * size + of_photo).ravel()
    cosines = (unit(patches[0]) @ unit(patches[1]).T).ravel()
    best = np.full(kernel.size, -np.inf, np.float32)
    np.maximum.at(best, pairs, cosines)
    return np.where(cosines == best[pairs], lost[pairs], 0).astype(np.float32).reshape(len(of_sketch), -1)


class Engine(ABC):
    """A network that is ready to compute, and what a checkpoint has beside it, or None. Threads may share it."""

    kind: str
    config: NetworkConfig
    calibration: Calibration
    prior: Prior | None
    vocabulary: Vocabulary | None
    projection: Projection | None
    parting: Parting | None
    device: str
    dtype: str

    @abstractmethod
    def encode(self, pictures: Floats, modality: Modality) -> Tokens:
        """Encodes prepared pictures (b, 3, H, W): float32 tokens. A picture's tokens depend on it alone, to 1e-4."""

    def encode_whole(self, variants: Floats) -> tuple[Tokens, Floats]:
        """Encodes variants of a sketch, (v, 3, H, W): tokens; the encoder's of all patches of the first, (2, n, e).

        The latter come from before the middle block, and from the end. Raises ModelError.
        """
        raise ModelError(f"{self.config.name} has no tokens of all patches; only two-sided networks have")

    def reduce_regions(self, tokens: Tokens) -> Tokens:
        """Reduces the regions of photos, local [Ret] (b, m, d), to (b, m, r); without a projection there are none."""
        local = tokens.regions
        return replace(tokens, regions=None if self.projection is None or local is None else self.projection(local))

    @abstractmethod
    def relate(self, sketch: Tokens, photos: Tokens) -> Floats:
        """Computes relation logits of a sketch and p photos, (p,), without prior and guesses. Raises ModelError."""

    @abstractmethod
    def observe(self, pictures: Floats, modality: Modality) -> Observed:
        """Encodes the variants (v, 3, H, W) of one picture, and records its attention; see ``average_variants``."""

    @abstractmethod
    def align(self, sketch: Tokens, photo: Tokens) -> Aligned | None:
        """Aligns a sketch and a photo, a batch of one each; None for a network with one vector for each picture."""


def grid_maps(cells: NDArray[Any], values: NDArray[Any], grid: int) -> NDArray[Any]:
    """Puts values (..., n) of cells (n,) on a grid: (..., grid, grid); other cells are zero."""
    maps = np.zeros((*values.shape[:-1], grid * grid), values.dtype)
    maps[..., cells] = values
    return maps.reshape(*values.shape[:-1], grid, grid)


# The flags of Linux by which ONNX Runtime chooses how it multiplies whole numbers, the best first.
_PROCESSORS = {"avx512_vnni": "VNNI", "avx_vnni": "VNNI", "avx512f": "AVX512", "avx2": "AVX2"}


def processor() -> str:
    """Returns the kind of processor: "VNNI", "AVX512", "AVX2", or "other", also where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return "other"
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split()}
    return next((kind for flag, kind in _PROCESSORS.items() if flag in flags), "other")


def threads() -> int:
    """Returns how many threads may compute: OMP_NUM_THREADS if it is set, else the cores of this machine."""
    named = os.environ.get("OMP_NUM_THREADS", "")
    return int(named) if named.isdigit() and int(named) else os.cpu_count() or 1


def set_threads(count: int | None) -> None:
    """Sets the threads of this process and its children, before a checkpoint is loaded; None changes nothing."""
    if count is None:
        return
    os.environ["OMP_NUM_THREADS"] = str(count)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(count)
