"""Pinned regions and shared matches on explanations written by hand."""

from __future__ import annotations

import numpy as np
import torch

from model import Explanation
from model.explanation.pair import SelfAttention
from service.explain.regions import (
    APART,
    SharedMatch,
    distance,
    inked_cells,
    matched_cells,
    pinned_regions,
    shared_matches,
)

GRID = 14
EVERYWHERE = frozenset(range(GRID * GRID))


def explanation(matches: dict[int, tuple[int, float]]) -> Explanation:
    """Of which each sketch cell matches one photo cell, that well, and nothing else."""
    photo_cells = sorted({cell for cell, _ in matches.values()})
    correspondence = torch.full((len(matches), len(photo_cells)), -1.0)
    for row, (cell, cosine) in enumerate(matches.values()):
        correspondence[row, photo_cells.index(cell)] = cosine
    nothing = SelfAttention(torch.zeros(1, 1, GRID, GRID), ())
    cells = torch.tensor(list(matches)), torch.tensor(photo_cells)
    return Explanation(GRID, nothing, nothing, *cells, None, None, None, None, correspondence, None, 1.0)


def test_the_regions_pinned_are_what_the_photos_match_best_on_average_and_lie_apart() -> None:
    one = explanation({0: (5, 0.9), 1: (6, 0.8), 7: (7, 0.7), 15: (8, 0.2), 120: (9, 0.6)})
    other = explanation({0: (5, 0.1), 1: (6, 0.8), 7: (7, 0.5), 15: (8, 0.2), 120: (9, 0.6)})
    # The averages are 0.5, 0.8, 0.6, 0.2 and 0.6; cell 0 lies beside cell 1.
    assert pinned_regions([one, other], EVERYWHERE, 3) == ((0, 1, 15), (7,), (120,))
    assert pinned_regions([one, other], EVERYWHERE, 1) == ((0, 1, 15),)
    assert pinned_regions([one], EVERYWHERE, 9) == ((0, 1, 15), (7,), (120,))
    assert pinned_regions([one], EVERYWHERE - {0, 7}, 9) == ((0, 1, 15), (120,))


def test_a_region_lights_up_the_photo_cells_that_its_cells_match() -> None:
    explained = explanation({0: (50, 0.9), 1: (40, 0.8), 2: (50, 0.7), 3: (60, 0.6)})
    assert matched_cells(explained, [0, 1, 2]) == (40, 50)
    assert matched_cells(explained, [3, 9]) == (60,)


def test_matches_are_shared_when_both_photos_have_them() -> None:
    gallery = explanation({0: (50, 0.9), 7: (40, 0.8), 98: (30, 0.7)})
    training = explanation({0: (11, 0.2), 7: (12, 0.6), 98: (13, 0.9)})
    assert [(m.sketch_cell, m.first_cell, m.second_cell) for m in shared_matches(gallery, training, EVERYWHERE, 9)] == [
        (98, 30, 13),
        (7, 40, 12),
        (0, 50, 11),
    ]
    (best,) = shared_matches(gallery, training, EVERYWHERE - {98}, 1)
    assert best == SharedMatch(7, 40, 12, best.cosine)
    assert abs(best.cosine - 0.6) < 1e-6


def test_distance_counts_steps_and_rows_do_not_run_into_each_other() -> None:
    assert distance(0, 15, GRID) == 1
    assert distance(13, 14, GRID) == 13
    assert distance(0, APART * GRID + 2, GRID) == APART


def test_cells_with_a_stroke_are_inked() -> None:
    sketch = np.full((64, 64, 3), 255, np.uint8)
    sketch[20, 35:50] = 0
    sketch[60, 60] = 200
    assert inked_cells(sketch, 4) == {6, 7}
