"""Rounds the tokens and regions of photos to the few bits in which an index keeps them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sketch_search.model.engine.tokens import Floats, Tokens

# Tokens are kept as -127..127, so that there are as many steps below 0 as above.
_STEPS = 127
#: The most steps of two neighbouring weights of one sign: 255 times as much fits in 16 bits with their sign.
PAIR = 128
# Regions are kept in steps of 1 / 13, from -7 to 7. In these four bits, as many scenes are found as in full precision.
_REGION_STEPS = 13


def round_tokens(photos: Tokens) -> dict[str, NDArray[Any]]:
    """Returns the arrays in which photos are kept: "tokens", "scales" and "positions"; with regions also "regions" and
    "colours", and with boxes "boxes".
    """
    # Tokens are always rounded to float16 first, so that equal photos get equal bytes in each segment. Values that
    # float16 cannot hold become infinite, and are reported as not finite.
    with np.errstate(over="ignore"):
        tokens, scales = quantize(photos.features.astype(np.float16))
    arrays: dict[str, NDArray[Any]] = {
        "tokens": tokens,
        "scales": scales,
        "positions": photos.positions.astype(np.uint8),
    }
    if photos.regions is not None and photos.colours is not None:
        arrays["regions"] = pack(photos.regions)
        arrays["colours"] = np.rint(photos.colours).clip(-128, 127).astype(np.int8)
    return arrays if photos.boxes is None else arrays | {"boxes": photos.boxes}


def quantize(features: NDArray[np.floating[Any]]) -> tuple[NDArray[np.int8], Floats]:
    """Quantizes (..., d) to int8 steps and scales (...), to half a 1/127 of a token's largest value, ties to even."""
    features = np.asarray(features, np.float32)
    with np.errstate(invalid="ignore"):
        scales = np.abs(features).max(axis=-1) / np.float32(_STEPS)
        steps = features / np.where(scales > 0, scales, 1)[..., None]
        return np.rint(steps).clip(-_STEPS, _STEPS).astype(np.int8), scales


def round_matrix(matrix: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Rounds a matrix (outputs, inputs) to int8 steps and scales (outputs,) that no processor adds up wrongly.

    Those without VNNI add two products, of steps 0..255 and of two neighbours in a row, in 16 bits that saturate. So
    neighbours of one sign are at most PAIR steps together.
    """
    halves = matrix[:, : matrix.shape[1] // 2 * 2]
    largest = np.abs(matrix).max(axis=1)
    sums = halves[:, ::2] + halves[:, 1::2]
    # Each of the two may be rounded up by half a step. Of neighbours of two signs, the larger one decides.
    scales = (np.maximum(largest, np.abs(sums).max(axis=1, initial=0)) / (PAIR - 1)).astype(np.float32)
    steps = matrix / np.where(scales > 0, scales, 1)[:, None]
    return np.rint(steps, out=steps).astype(np.int8), scales


def dequantize(steps: NDArray[np.int8], scales: Floats) -> Floats:
    """Undoes ``quantize``: (..., d) float32."""
    features = np.array(steps, np.float32)
    features *= scales[..., None]
    return features


def pack(regions: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Rounds regions of length 1, (..., r), to 15 steps, two in a byte, the first half above: (..., r / 2) uint8."""
    # For a photo without finite values, which its tokens show, any value will do.
    with np.errstate(invalid="ignore"):
        steps = (np.rint(regions * np.float32(_REGION_STEPS)).clip(-7, 7) + 8).astype(np.uint8)
    half = regions.shape[-1] // 2
    return np.asarray(steps[..., :half] << 4 | steps[..., half:])


def multiply_regions(regions: NDArray[Any], directions: Floats) -> Floats:
    """Multiplies regions, ``pack``ed (..., r / 2) uint8 or as floats (..., r), by directions (t, r): (..., t) float32.

    Packed ones are not unpacked: a byte is 16 times its first half and its second, so that two products are enough.
    """
    if regions.dtype != np.uint8:
        return np.asarray(regions @ directions.T)
    half, scaled = regions.shape[-1], directions / np.float32(_REGION_STEPS)
    first, rows = scaled[:, :half] / np.float32(16), regions.reshape(-1, half)
    found: Floats = rows.astype(np.float32) @ first.T
    found += (rows & 15).astype(np.float32) @ (scaled[:, half:] - first).T
    found -= np.float32(8) * scaled.sum(axis=1)
    return found.reshape(*regions.shape[:-1], len(directions))


def unpack(regions: NDArray[np.uint8]) -> Floats:
    """Undoes ``pack``: (..., r / 2) -> (..., r) float32."""
    half = regions.shape[-1]
    found = np.empty((*regions.shape[:-1], 2 * half), np.float32)
    found[..., :half], found[..., half:] = regions >> 4, regions & 15
    found -= np.float32(8)
    found /= np.float32(_REGION_STEPS)
    return found
