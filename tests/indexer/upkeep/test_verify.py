from __future__ import annotations

import numpy as np
import pytest

from indexer import IndexDamaged
from tests.indexer.galleries import Collection


@pytest.mark.parametrize(("column", "value"), [(1, 99), (2, 1), (3, 12), (3, -1)])
def test_places_that_are_nowhere_are_refused(column: int, value: int, copied: Collection) -> None:
    places = np.load(copied.index / "g000001" / "places.npy")
    places[-1 if places[-1, column] != value else 0, column] = value
    np.save(copied.index / "g000001" / "places.npy", places)
    with pytest.raises(IndexDamaged, match=r"past the end of a segment.*run `sketch-search index build`"):
        copied.open()
