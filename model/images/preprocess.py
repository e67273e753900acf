"""Prepares pictures for networks, and finds the parts of pages of pictures and of panoramas, which count as photos."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw

from sketch_search.model.errors import ModelError
from sketch_search.model.images import ink
from sketch_search.model.images.drawing import Drawing, read_drawing
from sketch_search.model.images.files import Source, open_image, to_rgb
from sketch_search.model.images.ink import Pixels

# A JPEG photo is decoded to this many times the input's side, which changes tokens no more than saving it again.
_PHOTO_DETAIL = 3

# Constants of the released code: the greatest channel sum of ink, and the margin around the ink in pixels.
_RELEASED_INK = 300
_RELEASED_MARGIN = 10
# OpenCV's fixed point for bilinear weights.
_WEIGHT_BITS = 11


def check_modality(modality: str) -> None:
    """Raises ModelError for another word, such as "sketches"."""
    if modality not in ("sketch", "photo"):
        raise ModelError(f"a picture is a 'sketch' or a 'photo', not {modality!r}")


@dataclass(frozen=True)
class Preprocessing:
    """Decides how the inputs of one network are made.

    Photos are squashed to a square. Sketches are cropped to their ink, drawn dark on white whatever their colours,
    scaled and centred on a white square, whose side is the longer side of the ink with a margin of 5% on both ends. The
    strongest ink is black; areas filled with colour are outlined, as in the lines that networks are trained on. With
    `released`, sketches are prepared as for the public ZSE-SBIR checkpoints: see `prepare_released_sketch`. With
    `padded`, all are padded to squares, as for CLIP-AT: see `prepare_padded`.
    """

    image_size: int = 224
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    released: bool = False
    padded: bool = False

    def open(self, source: Source, modality: str) -> Image.Image:
        """Opens a picture as `prepare` expects it. Raises as `open_image` does.

        A large JPEG photo is decoded to sides of at least three times `image_size`, unless for `released` networks.
        """
        check_modality(modality)
        return open_image(source, least_side=self.least_side(modality), sketch=modality == "sketch")

    def prepare(self, image: Image.Image, modality: str) -> NDArray[np.float32]:
        """Prepares a picture of any size and mode as (3, image_size, image_size) float32, (value / 255 - mean) / std.

        Raises `BlankSketch` for a sketch without ink, `ModelError` for a modality other than "sketch" and "photo".
        """
        return self.normalise(self.pixels(image, modality))

    def pixels(self, image: Image.Image, modality: str) -> Pixels:
        """Makes the pixels that `prepare` normalises: (image_size, image_size, 3) uint8."""
        check_modality(modality)
        if self.padded:
            return prepare_padded(image, self.image_size, sketch=modality == "sketch")
        if modality == "photo":
            return prepare_photo(image, self.image_size)
        return prepare_released_sketch(image, self.image_size) if self.released else self.drawing(image).whole

    def drawing(self, image: Image.Image, *, everything: bool = False) -> Drawing:
        """Prepares a drawing as `pixels` does, with its ink unless `released` or `padded`. Raises `BlankSketch`.

        With `everything`, writing and marks beside the drawing count, too.
        """
        rgb = _rgb(image, sketch=True)
        if self.released or self.padded:
            return Drawing.of(self.pixels(rgb, "sketch"), rgb.size)
        return read_drawing(rgb, self.image_size, everything=everything)

    def normalise(self, pixels: Pixels) -> NDArray[np.float32]:
        """Normalises pixels: (H, W, 3) uint8 -> (3, H, W) float32."""
        mean, std = (np.array(side, np.float32)[:, None, None] for side in (self.mean, self.std))
        values = np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32)
        values /= np.float32(255)
        values -= mean
        values /= std
        return values

    def shares(self, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        """Undoes `normalise`: pictures (b, 3, H, W) in 0..1."""
        mean, std = (np.array(side, np.float32)[:, None, None] for side in (self.mean, self.std))
        return pictures * std + mean

    def fingerprint(self, modality: str) -> str:
        """Returns the hex SHA-256 of the inputs made of a few probe pictures, which changes only if inputs do."""
        return _fingerprint(self, modality)

    def least_side(self, modality: str) -> int | None:
        return None if self.released or modality == "sketch" else _PHOTO_DETAIL * self.image_size


def prepare_photo(image: Image.Image, size: int) -> Pixels:
    """Squashes a photo to (size, size, 3) uint8 with Pillow's antialiased bicubic filter."""
    return np.array(_rgb(image, sketch=False).resize((size, size), Image.Resampling.BICUBIC))


def fit_photo(image: Image.Image, side: int) -> Pixels:
    """Scales a whole photo, as (h, w, 3) uint8, so that its longer side has ``side`` pixels."""
    longer = max(image.size)
    width, height = (max(1, round(length / longer * side)) for length in image.size)
    return np.array(_rgb(image, sketch=False).resize((width, height), Image.Resampling.BILINEAR))


def prepare_released_sketch(image: Image.Image, size: int) -> Pixels:
    """Prepares a sketch as for the training of the released ZSE-SBIR networks: (size, size, 3) uint8.

    It is cropped to the pixels with R+G+B <= 300 and a margin of 10 pixels left and above, 9 right and below; scaled so
    that the longer side is `size`, bilinear without antialias as by OpenCV; and padded to a square with the crop's
    largest value, half of the padding before. A sketch on dark paper, or without such a pixel, is first drawn dark on
    white as by `Preprocessing.drawing`. Raises `BlankSketch`.
    """
    rgb = _rgb(image, sketch=True)
    pixels = np.asarray(rgb)
    box = None
    if sum(ink.paper_colour(rgb)) > _RELEASED_INK:
        box = ink.box_of(pixels.sum(axis=2, dtype=np.uint16) <= _RELEASED_INK)
    if box is None:
        darkness, box = ink.find_ink(rgb)
        pixels = np.repeat(255 - darkness[:, :, None], 3, axis=2)
    top, bottom, left, right = box
    margin = _RELEASED_MARGIN
    crop = pixels[max(0, top - margin) : bottom - 1 + margin, max(0, left - margin) : right - 1 + margin]
    height, width = crop.shape[:2]
    # The quotient is computed first, as in the released code: truncated, size / (h / w) and size * w / h may differ.
    ratio = height / width
    shape = (size, max(1, int(size / ratio))) if height > width else (max(1, int(size * ratio)), size)
    square = np.full((size, size, 3), crop.max(), np.uint8)
    y, x = (size - shape[0]) // 2, (size - shape[1]) // 2
    square[y : y + shape[0], x : x + shape[1]] = _bilinear(crop, *shape)
    return square


def prepare_padded(image: Image.Image, size: int, *, sketch: bool) -> Pixels:
    """Prepares a picture as for the training of the released CLIP-AT networks: (size, size, 3) uint8.

    Its longer side is scaled to `size`, and it stands in the middle of a black square. Raises `BlankSketch`.
    """
    rgb = _rgb(image, sketch=sketch)
    if sketch:
        ink.find_ink(rgb)
    longer = max(rgb.size)
    width, height = (max(1, round(side / longer * size)) for side in rgb.size)
    square, corner = Image.new("RGB", (size, size)), (round((size - width) / 2), round((size - height) / 2))
    square.paste(rgb.resize((width, height), Image.Resampling.BICUBIC), corner)
    return np.array(square)


def _rgb(image: Image.Image, *, sketch: bool) -> Image.Image:
    return image if image.mode == "RGB" else to_rgb(image, sketch=sketch)


def _bilinear(pixels: Pixels, height: int, width: int) -> Pixels:
    """Scales as OpenCV's INTER_LINEAR, without antialias, in integers."""
    top, bottom, down = _neighbours(pixels.shape[0], height)
    left, right, across = _neighbours(pixels.shape[1], width)
    full = 1 << _WEIGHT_BITS
    across, down = across[None, :, None], down[:, None, None]

    def row(rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return pixels[rows][:, left].astype(np.int64) * (full - across) + pixels[rows][:, right] * across

    mixed = row(top) * (full - down) + row(bottom) * down
    return ((mixed + (1 << (2 * _WEIGHT_BITS - 1))) >> (2 * _WEIGHT_BITS)).astype(np.uint8)


def _neighbours(old: int, new: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Finds for each new pixel the two old pixels beside its centre, and the second one's weight in fixed point."""
    # The position times twice the new length: the centre (i + 0.5) * old / new - 0.5 without a fraction.
    doubled = np.clip((2 * np.arange(new, dtype=np.int64) + 1) * old - new, 0, 2 * new * (old - 1))
    first = doubled // (2 * new)
    weight = ((doubled - 2 * new * first) * (1 << _WEIGHT_BITS) + new) // (2 * new)
    return first, np.minimum(first + 1, old - 1), weight


@lru_cache(maxsize=32)
def _fingerprint(preprocessing: Preprocessing, modality: str) -> str:
    digest = hashlib.sha256()
    digest.update(repr((preprocessing.image_size, preprocessing.mean, preprocessing.std)).encode())
    # The probes are not opened from files, so the only choice about files is added here.
    if (side := preprocessing.least_side(modality)) is not None:
        digest.update(f"JPEG from {side}".encode())
    for picture in _probes():
        digest.update(preprocessing.pixels(picture, modality).tobytes())
    return digest.hexdigest()


def _probes() -> Iterator[Image.Image]:
    """Yields pictures that use every branch above: clean, tinted, light on dark, faint, huge, narrow, filled, noisy."""
    for size, paper, pen, width in (
        ((256, 256), (255, 255, 255), (0, 0, 0), 3),
        ((301, 173), (244, 233, 200), (30, 60, 160), 5),
        ((97, 211), (0, 0, 0), (255, 255, 255), 1),
        ((640, 480), (255, 255, 255), (165, 165, 165), 2),
        ((3201, 801), (255, 255, 255), (90, 90, 90), 2),
        ((3000, 3), (255, 255, 255), (0, 0, 0), 1),
    ):
        picture = Image.new("RGB", size, paper)
        x, y = size[0] - 1, size[1] - 1
        draw = ImageDraw.Draw(picture)
        draw.line([(x // 5, y // 7), (x // 2, y // 2), (x // 4, y * 4 // 5)], fill=pen, width=width)
        draw.rectangle([x // 2, y // 3, x * 3 // 4, y * 2 // 3], outline=pen, width=width)
        smudge = [(5 * p + i) // 6 for p, i in zip(paper, pen, strict=True)]
        draw.line([(0, y // 9), (x, y // 9)], fill=(smudge[0], smudge[1], smudge[2]), width=2)
        yield picture
    filled = Image.new("RGB", (200, 120), "white")
    ImageDraw.Draw(filled).ellipse((20, 20, 120, 100), fill=(200, 40, 40), outline=(0, 0, 0))
    yield filled
    rows, columns = np.mgrid[0:211, 0:307]
    planes: list[NDArray[Any]] = [rows + columns // 3, columns * 7 % 256, rows * columns // 64 + 31 * (rows // 16)]
    yield Image.fromarray((np.stack(planes, axis=-1) % 256).astype(np.uint8))
    grain = (rows * rows * 31 + columns * columns * 17 + rows * columns) % 13
    strokes = 25 * (np.abs(rows - columns) < 5) + 90 * (np.abs(rows + columns - 200) < 5)
    rough = Image.fromarray((200 + grain - strokes).astype(np.uint8)).convert("RGB")
    yield rough
    framed = Image.new("RGB", (100, 100), (0, 90, 60))
    framed.paste(rough.crop((40, 40, 124, 124)), (8, 8))
    yield framed


#: A part of a photo in its pixels: left, top, right, bottom. One beyond the right edge goes on at the left one.
Frame: TypeAlias = tuple[int, int, int, int]

# The most parts of a photo.
MAX_PARTS = 12
# Photos wider than so many heights have views, at most so many.
_WIDE, _MOST_VIEWS = 2.5, 8
# The least width of a view, and how far after the one before it begins, in heights.
_VIEW, _STEP = 1.5, 1.0
# The shape of photos that may go all around, and by how much less the columns at their edges differ than distant ones.
_AROUND, _CONTINUES = (1.98, 2.02), 4.0
# The longer side at which pages are looked at.
_SIDE = 320
# How far a channel may be from the ground's, and the share of the margin by which that is measured.
_EVEN, _MARGIN = 30, 0.95
# The most of a gap that is not ground.
_GAP = 0.015
# Of a picture: the least share of it, and of the lines beside its borders, that is not ground.
_FILLED, _BORDER = 0.75, 0.88
# How far these lines are inside, as a share of the side: a scan may be tilted a little.
_INSIDE = 0.045
# The least share of a page that one picture takes, and all together.
_LEAST, _TOGETHER = 0.015, 0.3
# The least side of a picture in pixels there, and the greatest ratio of its sides.
_SMALLEST, _RATIO = 24, 2.6
# The least deviation of the values in a picture: even areas are none.
_LIVELY = 8.0

_Box: TypeAlias = tuple[slice, slice]


def find_parts(image: Image.Image) -> tuple[Frame, ...]:
    """Finds the parts of an RGB photo; most have none."""
    width, height = image.size
    around = _AROUND[0] <= width / height <= _AROUND[1] and _goes_around(image)
    if not around and width <= _WIDE * height:
        return _pictures(image)
    # Overlapping views from left to right; of a photo that goes around, the last one spans the seam.
    view = max(_VIEW * height, width / (1 + (_MOST_VIEWS - 1) * _STEP / _VIEW))
    count = int(np.ceil(((width if around else width - view) / (view * _STEP / _VIEW)) - 1e-6)) + (not around)
    last = width * (count - 1) / count if around else width - view
    return tuple((round(left), 0, round(left + view), height) for left in np.linspace(0, last, count).tolist())


def cut(image: Image.Image, frame: Frame) -> Image.Image:
    """Cuts a part out of a photo."""
    left, top, right, bottom = frame
    part = image.crop(frame)
    if right > image.width:
        part.paste(image.crop((0, top, right - image.width, bottom)), (image.width - left, 0))
    return part


def _goes_around(image: Image.Image) -> bool:
    """Returns True if the right edge goes on at the left one."""
    columns = np.asarray(image.resize((64, 64), Image.Resampling.BOX)).astype(np.int16)
    left, right, inner = columns[:, 0], columns[:, -1], columns[:, 8:-8]
    seam = np.abs(left - right).mean()
    beside = (np.abs(left - columns[:, 1]).mean() + np.abs(right - columns[:, -2]).mean()) / 2
    distant = min(np.abs(inner - edge[:, None]).mean() for edge in (left, right))
    # Of blank edges nothing is known.
    blank = np.abs(left - np.median(left, axis=0)).mean() < _LIVELY
    return bool(not blank and seam <= 1.5 * beside + 1 and distant >= _CONTINUES * seam)


def _pictures(image: Image.Image) -> tuple[Frame, ...]:
    """Finds two or more pictures on even ground that together cover much of a page; nothing in other photos."""
    scale = max(1, round(max(image.size) / _SIDE))
    small = image.reduce(scale)
    pixels, rim = np.asarray(small), max(1, min(small.size) // 60)
    sides = pixels[:rim], pixels[-rim:], pixels[:, :rim], pixels[:, -rim:]
    margin = np.concatenate([side.reshape(-1, 3) for side in sides]).astype(np.int16)
    paper = np.median(margin, axis=0)
    uneven = float(np.quantile(np.abs(margin - paper).max(axis=1), _MARGIN))
    for ground, even in ((paper, min(uneven + 4, _EVEN)), (np.full(3, 255), 8), (np.zeros(3), 8)):
        ground_alone = Image.new("RGB", small.size, tuple(map(int, ground)))
        channels = ImageChops.difference(small, ground_alone).split()
        content = np.asarray(reduce(ImageChops.lighter, channels)) > even
        page = slice(0, content.shape[0]), slice(0, content.shape[1])
        boxes = [box for box in _divided(content, page) if content[box].size >= _LEAST * content.size]
        pictures = [box for box in boxes if len(boxes) > 1 and _is_picture(content[box], pixels[box])]
        if len(pictures) > 1:
            # Beside several whose borders are seen, what is as large and blends with the page somewhere is one, too.
            least = min(content[box].size for box in pictures)
            pictures = [box for box in boxes if box in pictures or content[box].size >= least]
        if 2 <= len(pictures) <= MAX_PARTS and sum(content[box].size for box in pictures) >= _TOGETHER * content.size:
            # Without what a JPEG mixes into the borders of a picture.
            ends = np.array([(x.start + 1, y.start + 1, x.stop - 1, y.stop - 1) for y, x in pictures]) * scale
            return tuple((left, top, right, bottom) for left, top, right, bottom in ends.tolist())
    return ()


def _divided(content: NDArray[np.bool_], box: _Box, whole: tuple[bool, ...] = ()) -> Iterator[_Box]:
    """Divides a page at its straight gaps, down and across by turns, until there are none: boxes without margins."""
    axis = len(whole) % 2
    filled = np.pad(content[box].mean(axis=1 - axis) > _GAP, 1)
    starts, stops = np.flatnonzero(np.diff(filled)).reshape(-1, 2).T + box[axis].start
    undivided = len(starts) == 1 and stops[0] - starts[0] == box[axis].stop - box[axis].start
    if undivided and whole[-1:] == (True,):
        yield box
        return
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        run = slice(start, stop)
        yield from _divided(content, (run, box[1]) if axis == 0 else (box[0], run), (*whole, undivided))


def _is_picture(content: NDArray[np.bool_], pixels: NDArray[np.uint8]) -> bool:
    """Returns True if what is in a box fills it up to straight borders, and is no even area."""
    height, width = content.shape
    if not 1 / _RATIO <= width / height <= _RATIO or min(height, width) < _SMALLEST:
        return False
    y, x = (max(1, round(_INSIDE * side)) for side in (height, width))
    lines = content[y, x:-x], content[-1 - y, x:-x], content[y:-y, x], content[y:-y, -1 - x]
    edged = min(line.mean() for line in lines) >= _BORDER and content.mean() >= _FILLED
    return bool(edged and pixels[y:-y, x:-x].std(axis=(0, 1)).max() >= _LIVELY)
