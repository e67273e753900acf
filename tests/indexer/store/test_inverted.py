from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from indexer import IndexRefused
from indexer.store.clusters import normalised
from indexer.store.inverted import InvertedCells, InvertedFile, inverted_cells, write_inverted_file

Floats = npt.NDArray[np.float32]
WIDTH = 12


def photos(count: int, seed: int = 0) -> Floats:
    """[Ret] in some groups, not normalised."""
    random = np.random.default_rng(seed)
    middles = 3 * random.standard_normal((5, WIDTH))
    return (middles[random.integers(5, size=count)] + random.standard_normal((count, WIDTH))).astype(np.float32)


def written(folder: Path, ret: Floats, cells: InvertedCells | None = None) -> InvertedFile:
    folder.mkdir()
    write_inverted_file(folder, ret.__getitem__, cells or inverted_cells(ret.__getitem__, len(ret)))
    return InvertedFile(folder, len(ret), WIDTH)


def best(ret: Floats, direction: Floats, count: int) -> set[int]:
    return set(np.argsort(-(normalised(ret) @ direction))[:count].tolist())


def test_with_all_cells_the_photos_found_are_the_nearest_ones(tmp_path: Path) -> None:
    ret = photos(400)
    inverted = written(tmp_path / "g", ret)
    direction = photos(1, seed=1)[0]
    assert len(inverted.centroids) == 20
    found = inverted.nearest(direction, 60, probed=20)
    # Numbers of one byte: at the edge, some photos are as near as others.
    assert (len(found), len(best(ret, direction, 50) & set(found.tolist()))) == (60, 50)
    assert inverted.problems() == []


def test_with_some_cells_most_of_the_nearest_photos_are_found(tmp_path: Path) -> None:
    ret = photos(2000)
    inverted = written(tmp_path / "g", ret)
    shares = [
        len(best(ret, direction, 20) & set(inverted.nearest(direction, 40, probed=12).tolist())) / 20
        for direction in photos(10, seed=1)
    ]
    assert np.mean(shares) > 0.9


def test_more_cells_are_searched_until_there_are_enough_photos(tmp_path: Path) -> None:
    inverted = written(tmp_path / "g", photos(100))
    assert inverted.nearest(photos(1)[0], 100, probed=1).tolist() == list(range(100))
    assert len(inverted.nearest(photos(1)[0], 1000)) == 100


def test_photos_that_do_not_pass_are_not_found_and_leave_their_places_to_others(tmp_path: Path) -> None:
    ret = photos(300)
    inverted = written(tmp_path / "g", ret)
    passing = np.arange(300) % 10 == 3
    found = inverted.nearest(photos(1, seed=1)[0], 25, passing, probed=2)
    assert len(found) == 25
    assert (found % 10 == 3).all()
    assert len(inverted.nearest(photos(1)[0], 25, np.zeros(300, np.bool_))) == 0


@pytest.mark.parametrize("count", [1, 2, 7])
def test_there_may_be_more_cells_than_photos(count: int, tmp_path: Path) -> None:
    before = inverted_cells(photos(400).__getitem__, 400)
    ret = photos(count, seed=2)
    inverted = written(tmp_path / "g", ret, inverted_cells(ret.__getitem__, count, before.centroids))
    assert inverted.nearest(photos(1)[0], 5).tolist() == list(range(count))[:5] or count > 5
    assert (len(inverted.centroids), inverted.problems()) == (20, [])


def test_the_same_photos_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        written(tmp_path / name, photos(50))
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["inverted_cells.npy", "inverted_lists.bin", "inverted_ranges.npy", "inverted_sizes.npy"]
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)


def of_fewer(folder: Path) -> None:
    """The lists of another index."""
    written(folder.with_name("other"), photos(90))
    (folder / "inverted_lists.bin").write_bytes((folder.with_name("other") / "inverted_lists.bin").read_bytes())


def negative(folder: Path) -> None:
    """Sizes whose sum is right."""
    sizes = np.load(folder / "inverted_sizes.npy")
    sizes[0] -= 200
    sizes[1] += 200
    np.save(folder / "inverted_sizes.npy", sizes)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "lists are missing": (lambda folder: (folder / "inverted_lists.bin").unlink(), "is missing"),
    "cells are missing": (lambda folder: (folder / "inverted_cells.npy").unlink(), "is missing"),
    "no cells": (lambda folder: np.save(folder / "inverted_cells.npy", np.empty((0, WIDTH), np.float32)), "hold cells"),
    "cells of another network": (
        lambda folder: np.save(folder / "inverted_cells.npy", np.zeros((10, 5), np.float32)),
        "is not the array",
    ),
    "of other photos": (of_fewer, "one code for each photo"),
    "negative sizes": (negative, "one code for each photo"),
}


@pytest.mark.parametrize(("damage", "said"), DAMAGES.values(), ids=DAMAGES.keys())
def test_what_is_missing_or_of_other_photos_is_refused(
    damage: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    written(tmp_path / "g", photos(100))
    damage(tmp_path / "g")
    with pytest.raises(IndexRefused, match=f"{said}.*verify --repair"):
        InvertedFile(tmp_path / "g", 100, WIDTH)


def test_a_list_that_names_photos_that_are_not_there_is_refused_when_it_is_read(tmp_path: Path) -> None:
    written(tmp_path / "g", photos(100))
    path = tmp_path / "g" / "inverted_lists.bin"
    data = bytearray(path.read_bytes())
    size = int(np.load(tmp_path / "g" / "inverted_sizes.npy")[0, 0])
    data[size * WIDTH : size * (WIDTH + 8)] = np.arange(1000, 1000 + size, dtype="<i8").tobytes()
    path.write_bytes(data)
    inverted = InvertedFile(tmp_path / "g", 100, WIDTH)
    assert inverted.problems() == ["its lists do not hold every photo once"]
    with pytest.raises(IndexRefused, match="names photos that are not there"):
        inverted.nearest(photos(1)[0], 100)
