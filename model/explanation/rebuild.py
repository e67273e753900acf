"""A sketch rebuilt from patches of photos (section 4.3, Fig. 7)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from model.explanation.pair import Explanation
from model.images import Pixels
from model.network import Tokens

# Cells of the sketch whose token was dropped stay white.
_PAPER = 255


@dataclass(frozen=True)
class Patch:
    """One patch of one photo: the photo's index or id, and the cell."""

    photo: int
    cell: int


@dataclass(frozen=True)
class Replacement:
    """The patches that replace the sketch patch at ``cell``, best first; several are averaged."""

    cell: int
    patches: tuple[Patch, ...]


def closest_patches(explanations: Sequence[Explanation]) -> list[Replacement]:
    """For each kept sketch patch the closest patch among all these photos, after cross-attention (eq. 8).

    explanations: of one sketch and at least one photo. A patch names its photo by its index among them; of equally
    close photos the first one is taken. No replacements where no patches are compared.
    """
    if not explanations[0].correspondence.numel():
        return []
    found = [e.best() for e in explanations]
    photos = torch.stack([cosines for cosines, _ in found]).argmax(dim=0).tolist()
    return [
        Replacement(int(cell), (Patch(n, int(explanations[n].photo_cells[found[n][1][i]])),))
        for i, (cell, n) in enumerate(zip(explanations[0].sketch_cells, photos, strict=True))
    ]


class NearestPatches:
    """The nearest patches among many photos, by the cosine of tokens as they left the encoder.

    Photos are added in chunks and not kept. The cross-attention is not used, because it would take a pass for each
    photo.
    """

    def __init__(self, sketch: Tokens, count: int) -> None:
        """``sketch``: a batch of one; ``count``: patches kept for each of its tokens, at least 1."""
        self._cells = sketch.positions[0].cpu()
        self._tokens = F.normalize(sketch.patches[0].float(), dim=-1)
        self._count = count
        n = len(self._tokens)
        device = self._tokens.device
        self._cosines = torch.empty(n, 0, device=device)
        self._photos, self._positions = (torch.empty(n, 0, dtype=torch.int64, device=device) for _ in range(2))

    def add(self, ids: NDArray[np.int64], photos: Tokens) -> None:
        """Adds photos with ids (m,). Of equally near patches, those that were added first are kept."""
        device = self._tokens.device
        tokens = F.normalize(photos.patches.to(device, torch.float32), dim=-1)
        m, per_photo = tokens.shape[:2]
        cosines = self._tokens @ tokens.flatten(0, 1).T
        owners = torch.from_numpy(ids).to(device).repeat_interleave(per_photo)
        self._merge(cosines, owners, photos.positions.to(device).reshape(m * per_photo))

    def found(self) -> list[tuple[int, tuple[Patch, ...]]]:
        """For each sketch token, its cell and at most ``count`` patches, nearest first."""
        rows = zip(self._cells.tolist(), self._photos.tolist(), self._positions.tolist(), strict=True)
        return [(cell, tuple(Patch(*p) for p in zip(ids, cells, strict=True))) for cell, ids, cells in rows]

    def _merge(self, cosines: torch.Tensor, owners: torch.Tensor, positions: torch.Tensor) -> None:
        count = min(self._count, cosines.shape[1])
        best, index = cosines.topk(count, dim=1)
        merged = torch.cat([self._cosines, best], dim=1)
        order = merged.argsort(dim=1, descending=True, stable=True)[:, : self._count]
        self._cosines = merged.gather(1, order)
        self._photos = torch.cat([self._photos, owners[index]], dim=1).gather(1, order)
        self._positions = torch.cat([self._positions, positions[index]], dim=1).gather(1, order)


def nearest_replacements(
    found: Iterable[tuple[int, tuple[Patch, ...]]], count: int, square: Callable[[int], Pixels | None], grid: int
) -> tuple[list[Replacement], dict[Patch, Pixels]]:
    """The ``count`` nearest patches whose photos still exist, and their pixels.

    Args:
        found: from ``NearestPatches.found``, with more than ``count`` patches, in case photos are gone.
        square: gives the prepared square of a photo by its id, or None where the photo is gone. It is called once for
            each photo, and the square is not kept.
        grid: patches along one side.

    Returns:
        A replacement for each sketch patch that has any patches left, and the pixels of all patches in them.
    """
    candidates = list(found)
    gone: set[int] = set()
    pixels: dict[Patch, Pixels] = {}
    while True:
        chosen = [(cell, tuple(p for p in patches if p.photo not in gone)[:count]) for cell, patches in candidates]
        wanted = {patch for _, patches in chosen for patch in patches} - pixels.keys()
        if not wanted:
            return [Replacement(cell, patches) for cell, patches in chosen if patches], pixels
        for photo in sorted({patch.photo for patch in wanted}):
            seen = square(photo)
            if seen is None:
                gone.add(photo)
                continue
            # All patches of this photo that a later round may need, so that it is opened only once.
            mine = {p for _, patches in candidates for p in patches if p.photo == photo}
            pixels |= {patch: cut(seen, patch.cell, grid) for patch in mine}


def cut(square: Pixels, cell: int, grid: int) -> Pixels:
    """A copy of the patch (side, side, 3) at ``cell`` of a prepared square (grid*side, grid*side, 3)."""
    side = len(square) // grid
    top, left = cell // grid * side, cell % grid * side
    return square[top : top + side, left : left + side].copy()


def assembled(replacements: Iterable[Replacement], pixels: Mapping[Patch, Pixels], grid: int, side: int) -> Image.Image:
    """The sketch with its patches replaced, (grid*side, grid*side) RGB; white where no token was kept.

    pixels: of every patch, (side, side, 3) uint8.
    """
    canvas = np.full((grid * side, grid * side, 3), _PAPER, np.uint8)
    for replacement in replacements:
        top, left = replacement.cell // grid * side, replacement.cell % grid * side
        patches = np.stack([pixels[patch] for patch in replacement.patches])
        canvas[top : top + side, left : left + side] = np.rint(patches.mean(axis=0))
    return Image.fromarray(canvas)


def from_photos(explanations: Sequence[Explanation], squares: Sequence[Pixels]) -> Image.Image:
    """The sketch rebuilt from the closest patches among all these photos (Fig. 7a).

    squares: for each photo the prepared pixels (H, W, 3) uint8 that the network saw.
    """
    grid = explanations[0].grid
    replacements = closest_patches(explanations)
    pixels = {patch: cut(squares[patch.photo], patch.cell, grid) for r in replacements for patch in r.patches}
    return assembled(replacements, pixels, grid, len(squares[0]) // grid)
