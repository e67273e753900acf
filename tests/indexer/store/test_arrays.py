"""Arrays of an index that are not those its manifest says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import model
from indexer import IndexRefused, build, open_index, remove, repair, verify
from tests.indexer.damages import sign


def flatten(path: Path) -> None:
    np.save(path, np.load(path).reshape(-1))


def widen(path: Path) -> None:
    array = np.load(path)
    np.save(path, np.concatenate([array, array], axis=-1))


def unbalance(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"(", b"[", 1))


def hide_objects(path: Path) -> None:
    np.save(path, np.full((3, 2), None, object), allow_pickle=True)


@pytest.mark.parametrize(
    "name", ["vectors", "places", "tokens", "positions", "scales", "centroid_ret", "centroid_tokens"]
)
@pytest.mark.parametrize("damage", [flatten, widen, unbalance, hide_objects])
def test_an_array_of_another_shape_or_kind_is_refused_and_repaired(
    name: str, damage: Callable[[Path], None], gallery: Path, index_path: Path, matcher: model.Matcher
) -> None:
    build([gallery], index_path, matcher)
    (path,) = index_path.rglob(f"{name}.npy")
    damage(path)
    sign(index_path)
    with pytest.raises(IndexRefused, match="verify --repair"):
        open_index(index_path, matcher)
    with pytest.raises(IndexRefused, match="verify --repair"):
        remove(["in here"], index_path)
    assert verify(index_path)
    assert repair(index_path, matcher).remaining == ()
