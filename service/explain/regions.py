"""Regions of a sketch: which ones photos match best, where in a photo, and which ones two photos both match."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import torch

from model import Explanation
from model.explanation import cut
from model.images import Pixels

# Cells between the middles of two regions, so that they do not overlap.
APART = 4
# Prepared sketches are black on white. A cell with nothing darker than this has no stroke, only the edge of one.
_INK = 128


@dataclass(frozen=True)
class SharedMatch:
    """A sketch cell, the cells that match it best in two photos, and the lesser of the two cosines."""

    sketch_cell: int
    first_cell: int
    second_cell: int
    cosine: float


def inked_cells(sketch: Pixels, grid: int) -> frozenset[int]:
    """The cells of a prepared sketch that hold a stroke."""
    return frozenset(cell for cell in range(grid * grid) if cut(sketch, cell, grid).min() < _INK)


def pinned_regions(
    explanations: Sequence[Explanation], inked: Collection[int], count: int
) -> tuple[tuple[int, ...], ...]:
    """At most ``count`` regions of one sketch that these photos match best on average: a kept cell and its neighbours.

    Args:
        explanations: of one sketch and at least one photo.
        inked: cells that may be in the middle, those with strokes. Networks store information in the tokens of empty
            paper: these match each other well, but mean nothing to a person.

    Returns:
        Cells, strongest region first; the middles are APART cells from each other.
    """
    grid, cells = explanations[0].grid, explanations[0].sketch_cells.tolist()
    strength = torch.stack([e.correspondence.amax(dim=1) for e in explanations]).mean(dim=0)
    order = strength.argsort(descending=True, stable=True).tolist()
    middles = far_apart((cells[i] for i in order if cells[i] in inked), count, grid)
    return tuple(tuple(c for c in cells if distance(c, middle, grid) <= 1) for middle in middles)


def matched_cells(explanation: Explanation, region: Collection[int]) -> tuple[int, ...]:
    """The photo cells that match the kept cells of a sketch region best, ascending."""
    if not explanation.correspondence.numel():
        return ()
    inside = torch.tensor([cell in region for cell in explanation.sketch_cells.tolist()])
    places = explanation.best()[1][inside]
    return tuple(sorted(set(explanation.photo_cells[places].tolist())))


def shared_matches(
    first: Explanation, second: Explanation, inked: Collection[int], count: int
) -> tuple[SharedMatch, ...]:
    """The sketch cells, of those ``inked``, that two photos both match best: at most ``count``, APART from each other.

    first, second: of the same sketch. Strongest first, by the lesser of the two cosines.
    """
    others = {sketch: (photo, cosine) for sketch, photo, cosine in second.matches()}
    both = {
        sketch: SharedMatch(sketch, photo, others[sketch][0], min(cosine, others[sketch][1]))
        for sketch, photo, cosine in first.matches()
        if sketch in inked
    }
    order = sorted(both, key=lambda cell: (-both[cell].cosine, cell))
    return tuple(both[cell] for cell in far_apart(order, count, first.grid))


def far_apart(cells: Iterable[int], count: int, grid: int) -> list[int]:
    """The first ``count`` cells, without those nearer than APART to one already taken."""
    taken: list[int] = []
    for cell in cells:
        if len(taken) < count and all(distance(cell, other, grid) >= APART for other in taken):
            taken.append(cell)
    return taken


def distance(one: int, other: int, grid: int) -> int:
    """Steps between two cells, diagonal ones too."""
    return max(abs(one // grid - other // grid), abs(one % grid - other % grid))
