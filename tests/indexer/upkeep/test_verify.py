from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from indexer import IndexRefused, verify
from tests.indexer.damages import not_finite, number, sign, sql
from tests.indexer.galleries import Collection


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (sql("UPDATE photos SET row = 99 WHERE id = 3"), "photo 3 points at row 99"),
        (sql("UPDATE photos SET segment = 's' WHERE id = 3"), "which is not there"),
        (sql("UPDATE photos SET cluster = 3 WHERE id = 3"), "photo 3 is in cluster 3 of 3"),
        (sql("UPDATE photos SET row = NULL WHERE id = 3"), "photo 3 is indexed and has no row"),
        (sql("UPDATE photos SET row = (SELECT row FROM photos WHERE id = 4) WHERE id = 3"), "of other content"),
        (sql("DELETE FROM photos WHERE id = 3"), "not hold as many photos"),
        (sql("UPDATE photos SET id = 40 WHERE id = 12"), "an id that the manifest has not given"),
        (not_finite("segments/*/scales.npy"), "scales.npy holds values that are not finite"),
        (not_finite("g000001/vectors.npy"), "vectors.npy holds values that are not finite"),
        (number("g000001/places.npy", 40, place=0), "places.npy does not say what the catalog says"),
        (not_finite("g000001/centroid_tokens.npy"), "centroid_tokens.npy holds values that are not finite"),
        (number("segments/*/positions.npy", 255), "positions.npy names patches that the grid does not have"),
        (number("segments/*/positions.npy", 0, place=1), "or one twice"),
        (number("g000001/centroid_positions.npy", 200), "centroid_positions.npy names patches that the grid"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_verify_finds_contents_that_contradict_each_other(
    damage: Callable[[Path], None], sentence: str, copied: Collection
) -> None:
    damage(copied.index)
    assert len(verify(copied.index)) == 1
    sign(copied.index)
    assert any(sentence in problem for problem in verify(copied.index))


def test_an_index_with_tokens_beyond_the_grid_is_refused_when_they_are_read(copied: Collection) -> None:
    beyond = r"beyond the \d+ patches of the network's grid; .* build again"
    number("segments/*/positions.npy", copied.matcher.config.grid**2)(copied.index)
    sign(copied.index)
    with copied.open() as index, pytest.raises(IndexRefused, match=beyond):
        index.photo_tokens(np.arange(3))
    number("g000001/centroid_positions.npy", copied.matcher.config.grid**2)(copied.index)
    sign(copied.index)
    with pytest.raises(IndexRefused, match=beyond):
        copied.open()


@pytest.mark.parametrize(("column", "value"), [(1, 99), (2, 1), (3, 12), (3, -1), (3, 0)])
def test_places_that_are_nowhere_or_taken_are_refused(column: int, value: int, copied: Collection) -> None:
    places = np.load(copied.index / "g000001" / "places.npy")
    places[-1 if places[-1, column] != value else 0, column] = value
    np.save(copied.index / "g000001" / "places.npy", places)
    with pytest.raises(IndexRefused, match=r"past the end of a segment.*verify --repair"):
        copied.open()
