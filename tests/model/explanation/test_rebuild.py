"""Sketches rebuilt from patches that were put where they should be found."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from model.explanation import (
    NearestPatches,
    Observed,
    Patch,
    Replacement,
    SelfAttention,
    closest_patches,
    compare,
    cut,
    from_photos,
    nearest_replacements,
)
from model.images.ink import Pixels
from model.network.tokens import Tokens
from tests.networks import comparing_encoded_tokens, randn, tiny_network

GRID, SIDE = 4, 16
NETWORK = comparing_encoded_tokens(tiny_network())
WIDTH = NETWORK.config.width


def square(seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (GRID * SIDE, GRID * SIDE, 3), dtype=np.uint8)


def observed(cells: list[int], patches: torch.Tensor) -> Observed:
    features = torch.cat([torch.ones(1, WIDTH), patches])[None]
    tokens = Tokens(features, torch.tensor([cells]))
    return Observed(tokens, SelfAttention(torch.zeros(1, 1, GRID, GRID), ()))


def piece(image: Image.Image, cell: int) -> Pixels:
    return cut(np.asarray(image), cell, GRID)


def test_a_sketch_whose_patches_a_photo_holds_is_rebuilt_of_that_photos_patches() -> None:
    cells, places = [0, 5, 6, 15], [3, 4, 8, 11]
    patches = randn(4, WIDTH, seed=0)
    sketch = observed(cells, patches)
    photo = observed(places, 2 * patches[[2, 0, 3, 1]])
    pixels = square(1)
    image = from_photos([compare(NETWORK, sketch, photo)], [pixels])
    assert image.size == (GRID * SIDE, GRID * SIDE)
    for cell, place in {0: 4, 5: 11, 6: 3, 15: 8}.items():
        assert np.array_equal(piece(image, cell), cut(pixels, place, GRID))
    for dropped in set(range(GRID**2)) - set(cells):
        assert (piece(image, dropped) == 255).all()


def test_of_several_photos_each_patch_comes_from_the_one_that_has_it() -> None:
    cells = [1, 2, 9]
    patches = randn(3, WIDTH, seed=0)
    other = randn(9, WIDTH, seed=5)
    photos = [
        observed([0, 7, 8], torch.stack([other[0], patches[1], other[1]])),
        observed([4, 5, 6], torch.stack([other[2], other[3], patches[0]])),
        observed([3, 12, 13], torch.stack([patches[2], other[4], other[5]])),
    ]
    explanations = [compare(NETWORK, observed(cells, patches), photo) for photo in photos]
    assert closest_patches(explanations) == [
        Replacement(1, (Patch(1, 6),)),
        Replacement(2, (Patch(0, 7),)),
        Replacement(9, (Patch(2, 3),)),
    ]
    squares = [square(n) for n in range(3)]
    image = from_photos(explanations, squares)
    assert np.array_equal(piece(image, 1), cut(squares[1], 6, GRID))
    assert np.array_equal(piece(image, 9), cut(squares[2], 3, GRID))


def test_a_cut_patch_is_the_cell_of_the_grid_counted_by_rows() -> None:
    pixels = square(0)
    assert np.array_equal(cut(pixels, 0, GRID), pixels[:16, :16])
    assert np.array_equal(cut(pixels, 3, GRID), pixels[:16, 48:])
    assert np.array_equal(cut(pixels, 13, GRID), pixels[48:, 16:32])


def test_the_nearest_patches_do_not_depend_on_the_chunks_they_come_in() -> None:
    sketch = Tokens(randn(1, 6, WIDTH, seed=0), torch.tensor([[0, 1, 2, 3, 4]]))
    photos = Tokens(randn(20, 8, WIDTH, seed=1), torch.arange(7).expand(20, -1) * 2)
    ids = np.arange(100, 120)
    cosines = torch.cosine_similarity(sketch.patches[0][:, None], photos.patches.flatten(0, 1)[None], dim=2)
    wanted = [
        (i, tuple(Patch(100 + place // 7, place % 7 * 2) for place in row.argsort(descending=True)[:6].tolist()))
        for i, row in enumerate(cosines)
    ]
    for size in (1, 3, 20):
        nearest = NearestPatches(sketch, 6)
        for start in range(0, 20, size):
            nearest.add(ids[start : start + size], photos[start : start + size])
        assert nearest.found() == wanted


def test_patches_of_photos_that_are_gone_are_taken_from_the_reserve_and_no_photo_is_opened_twice() -> None:
    found = [
        (0, (Patch(1, 0), Patch(2, 3), Patch(3, 1), Patch(1, 2))),
        (5, (Patch(2, 0), Patch(2, 1), Patch(4, 4))),
        (6, (Patch(2, 7),)),
    ]
    opened: list[int] = []

    def read(photo: int) -> Pixels | None:
        opened.append(photo)
        return None if photo == 2 else square(photo)

    replacements, pixels = nearest_replacements(found, 2, read, GRID)
    assert replacements == [
        Replacement(0, (Patch(1, 0), Patch(3, 1))),
        Replacement(5, (Patch(4, 4),)),
    ]
    assert sorted(opened) == [1, 2, 3, 4]
    assert np.array_equal(pixels[Patch(3, 1)], cut(square(3), 1, GRID))


def test_photos_that_are_only_in_reserve_are_not_opened() -> None:
    opened: list[int] = []

    def read(photo: int) -> Pixels | None:
        opened.append(photo)
        return square(photo)

    nearest_replacements([(0, (Patch(1, 0), Patch(2, 0)))], 1, read, GRID)
    assert opened == [1]
