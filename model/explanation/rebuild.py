"""A sketch put together anew from patches of photos (section 4.3, Fig. 7)."""

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

# Cells of the sketch that the network dropped stay paper.
_PAPER = 255


@dataclass(frozen=True)
class Patch:
    """One patch of one photo: its number among the photos, or its id, and its cell."""

    photo: int
    cell: int


@dataclass(frozen=True)
class Replacement:
    """What a sketch patch is replaced by, best first; where there are several, by their mean."""

    cell: int
    patches: tuple[Patch, ...]


def closest_patches(explanations: Sequence[Explanation]) -> list[Replacement]:
    """For each sketch patch kept the closest patch of all these photos together, after cross-attention (eq. 8).

    explanations: of one sketch and at least one photo; a patch's photo is its number among them. Of equally close
    photos the first is taken.
    """
    found = [e.correspondence.max(dim=1) for e in explanations]
    photos = torch.stack([best.values for best in found]).argmax(dim=0).tolist()
    return [
        Replacement(int(cell), (Patch(n, int(explanations[n].photo_cells[found[n].indices[i]])),))
        for i, (cell, n) in enumerate(zip(explanations[0].sketch_cells, photos, strict=True))
    ]


class NearestPatches:
    """The nearest patches of many photos, by the cosine of tokens as they left the encoder.

    Photos come in chunks and are not kept. The cross-attention plays no part: it would look at each photo apart.
    """

    def __init__(self, sketch: Tokens, count: int) -> None:
        """``sketch``: a batch of one; ``count``: patches kept for each of its tokens, at least 1."""
        self._cells = sketch.positions[0].cpu()
        self._tokens = F.normalize(sketch.patches[0].float(), dim=-1)
        self._count = count
        n = len(self._tokens)
        device = self._tokens.device
        self._cosines = torch.empty(n, 0, device=device)
        self._photos, self._places = (torch.empty(n, 0, dtype=torch.int64, device=device) for _ in range(2))

    def add(self, ids: NDArray[np.int64], photos: Tokens) -> None:
        """Take in these photos; ids: (m,). Of equally near patches those that came first are kept."""
        device = self._tokens.device
        tokens = F.normalize(photos.patches.to(device, torch.float32), dim=-1)
        m, per_photo = tokens.shape[:2]
        cosines = self._tokens @ tokens.flatten(0, 1).T
        owners = torch.from_numpy(ids).to(device).repeat_interleave(per_photo)
        self._merge(cosines, owners, photos.positions.to(device).reshape(m * per_photo))

    def found(self) -> list[tuple[int, tuple[Patch, ...]]]:
        """For each sketch token its cell and at most ``count`` patches, nearest first."""
        rows = zip(self._cells.tolist(), self._photos.tolist(), self._places.tolist(), strict=True)
        return [(cell, tuple(Patch(*p) for p in zip(ids, places, strict=True))) for cell, ids, places in rows]

    def _merge(self, cosines: torch.Tensor, owners: torch.Tensor, places: torch.Tensor) -> None:
        count = min(self._count, cosines.shape[1])
        best, index = cosines.topk(count, dim=1)
        merged = torch.cat([self._cosines, best], dim=1)
        order = merged.argsort(dim=1, descending=True, stable=True)[:, : self._count]
        self._cosines = merged.gather(1, order)
        self._photos = torch.cat([self._photos, owners[index]], dim=1).gather(1, order)
        self._places = torch.cat([self._places, places[index]], dim=1).gather(1, order)


def nearest_replacements(
    found: Iterable[tuple[int, tuple[Patch, ...]]], count: int, square: Callable[[int], Pixels | None], grid: int
) -> tuple[list[Replacement], dict[Patch, Pixels]]:
    """The ``count`` nearest patches that can still be had, and their pixels.

    Args:
        found: from ``NearestPatches.found``, with some to spare.
        square: the prepared square of a photo by id, or None where the photo is gone. Each is asked for once, and
            not kept.
        grid: patches along one side.

    Returns:
        A replacement for each sketch patch for which there is any, and the pixels of all their patches.
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
            # All that any round may want of this photo, so that it is opened once.
            mine = {p for _, patches in candidates for p in patches if p.photo == photo}
            pixels |= {patch: cut(seen, patch.cell, grid) for patch in mine}


def cut(square: Pixels, cell: int, grid: int) -> Pixels:
    """The patch (side, side, 3) of a prepared square (grid*side, grid*side, 3), in memory of its own."""
    side = len(square) // grid
    top, left = cell // grid * side, cell % grid * side
    return square[top : top + side, left : left + side].copy()


def assembled(replacements: Iterable[Replacement], pixels: Mapping[Patch, Pixels], grid: int, side: int) -> Image.Image:
    """The sketch with its patches replaced, (grid*side, grid*side) RGB; white where it kept none.

    pixels: of every patch, (side, side, 3) uint8.
    """
    canvas = np.full((grid * side, grid * side, 3), _PAPER, np.uint8)
    for replacement in replacements:
        top, left = replacement.cell // grid * side, replacement.cell % grid * side
        patches = np.stack([pixels[patch] for patch in replacement.patches])
        canvas[top : top + side, left : left + side] = np.rint(patches.mean(axis=0))
    return Image.fromarray(canvas)


def from_photos(explanations: Sequence[Explanation], squares: Sequence[Pixels]) -> Image.Image:
    """The sketch, rebuilt from the closest patches of these photos together (Fig. 7a).

    squares: of each photo the prepared pixels (H, W, 3) uint8 that the network saw.
    """
    grid = explanations[0].grid
    replacements = closest_patches(explanations)
    pixels = {patch: cut(squares[patch.photo], patch.cell, grid) for r in replacements for patch in r.patches}
    return assembled(replacements, pixels, grid, len(squares[0]) // grid)
