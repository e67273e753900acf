"""A checkpoint is taught to divide drawings on sketches drawn together."""

import numpy as np
import pytest

from sketch_search.model.engine.parting import SIDE
from sketch_search.model.errors import ModelError
from sketch_search.model.training.papers.parting import BATCH, Example, train_parting


def example(chance: np.random.Generator) -> Example:
    """Two squares of ink, or one; the encoder's tokens tell which of them a patch shows."""
    darkness, owner, patches = (
        np.zeros((SIDE, SIDE), np.uint8),
        np.full((SIDE, SIDE), -1),
        np.zeros((12, 12, 8), np.float32),
    )
    left, right = np.arange(20, 70), np.arange(72, 140)
    for number, columns in enumerate((left, right) if chance.random() < 0.7 else (left,)):
        darkness[40:120:9, columns] = 255
        owner[40:120:9, columns] = number
        patches[:, columns[0] // 14 : columns[-1] // 14 + 1, number] = 3
    patches += chance.normal(0, 0.1, patches.shape)
    return Example.of(patches.reshape(1, 144, 8), darkness, owner)


def test_a_trained_parting_divides_drawings_by_what_their_patches_show() -> None:
    chance = np.random.default_rng(0)
    parting = train_parting([example(chance) for _ in range(2 * BATCH)], epochs=8)
    one, patches = np.zeros((SIDE, SIDE), np.uint8), np.zeros((12, 12, 8), np.float32)
    one[40:120:9, 20:70] = one[40:120:9, 72:140] = 255
    patches[:, :5, 0] = patches[:, 5:, 1] = 3
    labels, _ = parting.divide(patches.reshape(1, 144, 8), one)
    assert set(np.unique(labels[:, :65])) - {-1} != set(np.unique(labels[:, 80:])) - {-1}


def test_too_few_drawings_are_refused() -> None:
    with pytest.raises(ModelError, match="at least 16 drawings"):
        train_parting([example(np.random.default_rng(0))], epochs=1)
