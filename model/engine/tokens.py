"""Holds encoded pictures, as [Ret] and patch tokens, makes variants of a sketch, and rounds tokens for an index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats: TypeAlias = NDArray[np.float32]
Numbers: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Tokens:
    """A batch of encoded pictures of one modality.

    features: (b, n, d) floating point; row 0 is [Ret], rows 1..n-1 are patch tokens. positions: (b, n-1) integers,
        ascending in each row: the cell of each patch token, counted row by row. summary: (b, e), a two-sided encoder's
        summary of sketches, from which guesses are made: it has more than [Ret] keeps. None for photos, and for other
        encoders. regions: (b, m, r) of length 1, what the squares of 2 x 2 patches of a photo show, row by row from the
        top left (``model.engine.Projection``). None for sketches, and for networks without a projection. colours: (b,
        m, 3), the mean colour of each region, as CIELAB. None without regions. expects: (b, k), of sketches, by what
        the guess of each thing is multiplied (``model.engine.expectations``); None for 1. boxes: (b, BOXES, 6) uint8,
        of photos, as ``Detector.detect`` finds them; None if they were not asked for.
    """

    features: NDArray[Any]
    positions: NDArray[Any]
    summary: NDArray[Any] | None = None
    regions: NDArray[Any] | None = None
    colours: NDArray[Any] | None = None
    expects: NDArray[Any] | None = None
    boxes: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        if self.features.ndim != 3 or self.positions.shape != (self.features.shape[0], self.features.shape[1] - 1):
            shapes = f"{self.features.shape} and {self.positions.shape}"
            raise ValueError(f"tokens need features (b, n, d) and positions (b, n-1), not {shapes}")

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, rows: slice | NDArray[Any] | Sequence[int]) -> Tokens:
        parts: dict[str, Any] = {name: None if part is None else part[rows] for name, part in vars(self).items()}
        return Tokens(**parts)

    @property
    def ret(self) -> NDArray[Any]:
        """(b, d): the retrieval token of each picture, not normalised."""
        return self.features[:, 0]

    @property
    def guessed_from(self) -> NDArray[Any]:
        return self.ret if self.summary is None else self.summary

    @property
    def patches(self) -> NDArray[Any]:
        """(b, n-1, d): the patch tokens."""
        return self.features[:, 1:]

    @property
    def without_patches(self) -> Tokens:
        """Returns the part needed to compare by [Ret]."""
        return Tokens(self.features[:, :1], self.positions[:, :0], self.summary, expects=self.expects)

    def expecting(self, expects: NDArray[Any] | None) -> Tokens:
        """Returns the sketches as they are guessed for a gallery: expects (k,), or None."""
        return replace(self, expects=None if expects is None else np.repeat(expects[None], len(self), axis=0))

    @staticmethod
    def of_ret(ret: NDArray[Any]) -> Tokens:
        """Makes tokens of [Ret] (b, d) alone, all that the method "ret" reads and that one-vector networks give."""
        return Tokens(ret[:, None], np.empty((len(ret), 0), np.int64))

    @staticmethod
    def cat(parts: Sequence[Tokens]) -> Tokens:
        """Joins pictures with the same number of tokens."""
        return Tokens(**join_columns(parts))


def join_columns(records: Sequence[Any], axis: int = 0) -> dict[str, Any]:
    """Joins records of one class, whose fields are arrays or None, field by field."""
    columns = {name: [vars(record)[name] for record in records] for name in vars(records[0])}
    return {name: None if parts[0] is None else np.concatenate(parts, axis) for name, parts in columns.items()}


def as_floats(values: Any) -> Floats:
    """Returns an array, or a tensor of PyTorch on any device, as a float32 array."""
    tensor = hasattr(values, "detach")
    return np.asarray(values.detach().float().cpu() if tensor else values, np.float32)


# The parts of a float16 in a float32, but for the bias of its exponent, which 2^(127 - 15) makes up for; and the least
# float16 that is no finite number, below 0 and above.
_HALF, _REBIAS, _NOT_FINITE = np.uint32(0x8FFFE000).astype(np.int32), np.float32(2.0**112), (0xFC00, 0x7C00)


def widen(values: NDArray[Any]) -> Floats:
    """Converts numbers to float32, as ``asarray`` does: float16 in a sixth of its time."""
    if values.dtype != np.float16:
        return np.asarray(values, np.float32)
    bits = values.view(np.int16)
    if bits.view(np.uint16).max(initial=0) >= _NOT_FINITE[0] or bits.max(initial=0) >= _NOT_FINITE[1]:
        return values.astype(np.float32)
    wide = bits.astype(np.int32)
    wide <<= 13
    wide &= _HALF
    floats: Floats = wide.view(np.float32)
    floats *= _REBIAS
    return floats


def unit(vectors: NDArray[Any]) -> Floats:
    """Scales vectors along the last dimension to length 1, in float32; those shorter than 1e-12 stay near zero."""
    values = widen(np.asarray(vectors))
    lengths = np.sqrt(np.einsum("...d,...d->...", values, values))[..., None]
    return np.asarray(values / np.maximum(lengths, np.float32(1e-12)))


def softmax(logits: Floats) -> Floats:
    """Softmax along the last dimension."""
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def cosines(directions: Floats, vectors: NDArray[Any]) -> Floats:
    """Returns the cosines of directions (s, d) of length 1 and a few vectors or many, (p, d): (s, p) float32.

    Products are scaled, since they are fewer numbers than the vectors.
    """
    values = widen(np.asarray(vectors))
    # The other way round, the product takes half as long again.
    products: Floats = np.ascontiguousarray((values @ directions.T).T)
    products /= np.maximum(np.sqrt(np.einsum("pd,pd->p", values, values)), np.float32(1e-12))
    return products


_LARGER = 1.15
_TURN = 10
_PEN = 3


def sketch_variants(sketch: Floats, count: int) -> Floats:
    """Makes 1 to MAX_VARIANTS variants, (3, H, W) each: itself, 15% larger, mirrored with a thicker pen and turned."""

    def larger(picture: Floats) -> Floats:
        cut = [side * (1 - 1 / _LARGER) / 2 for side in (width, height)]
        box = cut[0], cut[1], width - cut[0], height - cut[1]
        return change_planes(picture, lambda plane: plane.resize(plane.size, Image.Resampling.BILINEAR, box))

    def turned(picture: Floats) -> Floats:
        # Ink is below zero. Pillow's MinFilter would take fifteen times as long.
        thick = np.pad(picture[:, :, ::-1], ((0, 0), *[(_PEN // 2,) * 2] * 2), "edge")
        thick = np.minimum.reduce([thick[:, row : row + height] for row in range(_PEN)])
        thick = np.minimum.reduce([thick[:, :, column : column + width] for column in range(_PEN)])
        return change_planes(thick, lambda plane: plane.rotate(-_TURN, Image.Resampling.BILINEAR))

    # Turning gives zeros outside. So paper, the greatest value of each channel, is mapped to zero meanwhile.
    (_, height, width), paper = sketch.shape, sketch.max(axis=(1, 2), keepdims=True)
    return np.stack([sketch, *(paper + change(sketch - paper) for change in (larger, turned)[: count - 1])])


def change_planes(picture: Floats, change: Callable[[Image.Image], Image.Image]) -> Floats:
    """Changes each channel of a picture (3, H, W) by Pillow, as an image of floats."""
    return np.stack([np.asarray(change(Image.fromarray(plane)), np.float32) for plane in picture])


def average_variants(variants: Tokens) -> Tokens:
    """Averages the variants of one sketch to a batch of one: the first's tokens with the mean direction of [Ret]."""
    if len(variants) == 1:
        return variants
    first = variants[:1]
    summary = None if variants.summary is None else _mean_direction(variants.summary)
    features = np.concatenate([_mean_direction(variants.ret)[:, None], first.patches], axis=1)
    return Tokens(features, first.positions, summary)


def _mean_direction(vectors: Floats) -> Floats:
    """(v, d) -> (1, d), the mean of the directions, as long as the first vector."""
    return np.asarray(unit(unit(vectors).mean(axis=0, keepdims=True)) * np.linalg.norm(vectors[0]))


def cells_of_patches(patches: int, grid: int) -> NDArray[np.int64]:
    """Finds the cell of a grid in which the centre of each patch lies, (patches**2,); both divide one square."""
    along = (2 * np.arange(patches) + 1) * grid // (2 * patches)
    return np.asarray((along[:, None] * grid + along).ravel())


# Tokens are kept as -127..127, so that there are as many steps below 0 as above.
_STEPS = 127
#: The most steps of two neighbouring weights of one sign: 255 times as much fits in 16 bits with their sign.
PAIR = 128
# Regions are kept in steps of 1 / 13, from -7 to 7. In these four bits, as many scenes are found as in full precision.
_REGION_STEPS = 13


def round_tokens(photos: Tokens) -> dict[str, NDArray[Any]]:
    """Returns the arrays in which photos are kept: "tokens", "scales", "positions"; "regions", "colours"; "boxes"."""
    # In float16 first, so that equal photos get equal bytes; what it cannot hold is reported as not finite.
    with np.errstate(over="ignore"):
        tokens, scales = quantize(photos.features.astype(np.float16))
    arrays: dict[str, NDArray[Any]] = {"tokens": tokens, "scales": scales}
    arrays["positions"] = photos.positions.astype(np.uint8)
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


def multiply_regions(regions: NDArray[np.uint8], directions: Floats) -> Floats:
    """Multiplies regions, ``pack``ed (..., r / 2), by directions (t, r): (..., t) float32.

    They are not unpacked: a byte is 16 times its first half and its second, so that two products are enough.
    """
    half, scaled = regions.shape[-1], directions / np.float32(_REGION_STEPS)
    first, rows = scaled[:, :half] / np.float32(16), regions.reshape(-1, half)
    products: Floats = rows.astype(np.float32) @ first.T
    products += (rows & 15).astype(np.float32) @ (scaled[:, half:] - first).T
    products -= np.float32(8) * scaled.sum(axis=1)
    return products.reshape(*regions.shape[:-1], len(directions))


def unpack(regions: NDArray[np.uint8]) -> Floats:
    """Undoes ``pack``: (..., r / 2) -> (..., r) float32."""
    half = regions.shape[-1]
    unpacked = np.empty((*regions.shape[:-1], 2 * half), np.float32)
    unpacked[..., :half], unpacked[..., half:] = regions >> 4, regions & 15
    unpacked -= np.float32(8)
    unpacked /= np.float32(_REGION_STEPS)
    return unpacked
