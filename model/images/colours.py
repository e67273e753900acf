"""Finds the colours of photos, as CIELAB: L in 0..100, a and b in about -100..100; D65, two degrees."""

import math
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

# From linear sRGB to XYZ, each divided by its white.
_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], np.float32)
_TO_XYZ /= _TO_XYZ.sum(axis=1, keepdims=True)
_CUBED = 6 / 29
# Squares of this many pixels a side are averaged before their colours are converted, which takes long.
_AVERAGED = 7


def lab(colours: NDArray[Any]) -> NDArray[np.float32]:
    """Converts sRGB (..., 3) in 0..1 to CIELAB (..., 3)."""
    rgb = np.clip(np.asarray(colours, np.float32), 0, 1)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _TO_XYZ.T
    x, y, z = np.moveaxis(np.where(xyz > _CUBED**3, np.cbrt(xyz), xyz / (3 * _CUBED**2) + 4 / 29), -1, 0)
    return np.asarray(np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1), np.float32)


def hexadecimal(colour: NDArray[Any]) -> str:
    """Writes a colour (3,), as CIELAB, as #rrggbb; one that screens do not have as the nearest of each channel."""
    y = (float(colour[0]) + 16) / 116
    cubes = np.array([y + float(colour[1]) / 500, y, y - float(colour[2]) / 200])
    xyz = np.where(cubes > _CUBED, cubes**3, 3 * _CUBED**2 * (cubes - 4 / 29))
    linear = np.clip(np.linalg.solve(_TO_XYZ.astype(np.float64), xyz), 0, 1)
    rgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return "#" + "".join(f"{round(255 * share):02x}" for share in rgb.tolist())


def average_cells(pictures: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Averages pictures (b, 3, H, W) to a few points of each of ``side`` cells, which divides both: (b, 3, h, w)."""
    step = math.gcd(pictures.shape[2] // side, _AVERAGED)
    # Slices are added several times as fast as an axis is reduced.
    rows = reduce(np.add, [pictures[:, :, start::step] for start in range(step)])
    points: NDArray[np.float32] = reduce(np.add, [rows[..., start::step] for start in range(step)])
    return points / np.float32(step * step)


def colours_of_cells(pictures: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Computes the mean colour of ``side`` cells in a row of (b, 3, H, H) in 0..1: (b, side**2, 3), by rows."""
    batch, cell = len(pictures), pictures.shape[2] // side
    colours = lab(pictures.transpose(0, 2, 3, 1)).reshape(batch, side, cell, side, cell, 3)
    return np.asarray(colours.mean(axis=(2, 4)).reshape(batch, side * side, 3))
