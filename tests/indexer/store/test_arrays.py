from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from indexer import IndexRefused, remove
from tests.indexer.damages import sign
from tests.indexer.galleries import Collection


def widen(path: Path) -> None:
    array = np.load(path)
    np.save(path, np.concatenate([array, array], axis=-1))


def hide_objects(path: Path) -> None:
    np.save(path, np.full((3, 2), None, object), allow_pickle=True)


DAMAGES = [("vectors", widen), ("tokens", widen), ("centroid_tokens", widen), ("centroid_tokens", hide_objects)]


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_an_array_of_another_shape_or_kind_is_refused(
    name: str, damage: Callable[[Path], None], copied: Collection
) -> None:
    (path,) = copied.index.rglob(f"{name}.npy")
    damage(path)
    sign(copied.index)
    for work in (copied.open, lambda: remove(["in here"], copied.index)):
        with pytest.raises(IndexRefused, match="run `sketch-search index build`"):
            work()
