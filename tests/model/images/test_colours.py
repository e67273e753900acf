import numpy as np
import pytest

from sketch_search.model.images import averaged, colours_of_cells, lab


def test_colours_are_converted_to_cielab() -> None:
    given = np.array([[1, 1, 1], [1, 0, 0], [0, 0, 1], [0.5, 0.5, 0.5]])
    wanted = [[100, 0, 0], [53.2, 80.1, 67.2], [32.3, 79.2, -107.9], [53.4, 0, 0]]
    assert lab(given) == pytest.approx(np.array(wanted), abs=0.1)


def test_each_cell_of_a_photo_has_its_mean_colour() -> None:
    picture = np.zeros((1, 3, 56, 56), np.float32)
    picture[0, 0, :14, 42:] = 1  # red, in the upper right cell of four in a row
    picture[0, :, 42:, :7] = 1  # white, in half of the lower left cell
    colours = colours_of_cells(averaged(picture, 4), 4)
    assert colours.shape == (1, 16, 3)
    assert colours[0, 3] == pytest.approx(lab(np.array([1, 0, 0])), abs=0.1)
    assert colours[0, 12] == pytest.approx([50, 0, 0], abs=0.1)
    assert np.abs(np.delete(colours[0], [3, 12], axis=0)).max() < 0.1
