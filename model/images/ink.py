"""Finds the ink of a sketch, whatever the colours of pen and paper, also in a photo of a sheet or board."""

from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter, ImageOps

from sketch_search.model.errors import BlankSketch

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]
# Top, bottom, left and right; the ends are exclusive.
Box = tuple[int, int, int, int]

_BLANK = "the sketch is blank: nothing is drawn on its paper; draw something"
_PALE = "the sketch is blank: no stroke stands out from its paper; use a darker pen"

# Pixels that differ from the paper by less than this, in the channel that differs most, are paper.
LEAST_CONTRAST = 10
# In a noisy picture the limit is this many times the median difference, but at most so much, because of photos.
_NOISE_FACTOR = 5
_MAX_NOISE = 40
# Fainter than this share of the strongest ink is a smudge or a compression artefact, which must not widen the crop.
_SMUDGE_SHARE = 1 / 8
# The border has the paper's colour if at least this share of the picture has it; else the border is only a frame.
_FRAME_SHARE = 0.2
_SAMPLED_PIXELS = 1 << 20
_STRIP_PIXELS = 1 << 22
# Margin on each side of the ink, as a share of the input's side. Without it, patches would cut strokes at the edge.
_MARGIN = 0.05
# Sketches that shrink more than this first keep the greatest value of each block, so that thin lines survive.
_MAX_REDUCTION = 8
_KEPT_REDUCTION = 4


def find_ink(image: Image.Image) -> tuple[Pixels, Box]:
    """Finds the ink of an (H, W) RGB sketch by the largest difference of a channel from the paper.

    Returns its darkness, (H, W) uint8, 0 on paper and 255 at the strongest ink, and its box. Raises `BlankSketch`.
    """
    distance = _distance(image, paper_colour(image))
    counts = np.array(Image.fromarray(distance).histogram())
    noise = int(np.searchsorted(np.cumsum(counts), distance.size / 2))
    threshold = min(max(LEAST_CONTRAST, _NOISE_FACTOR * noise), _MAX_NOISE)
    strongest = percentile(counts, threshold, 99)
    threshold = max(threshold, int(strongest * _SMUDGE_SHARE))
    box = box_of_ink(distance >= threshold)
    if box is None:
        # Noise is everywhere, and a line in few places.
        raise BlankSketch(_PALE if 0 < np.count_nonzero(distance) < distance.size / 8 else _BLANK)
    distance[distance < threshold] = 0
    return stretch(distance, strongest), box


def paper_colour(image: Image.Image) -> tuple[int, int, int]:
    """Finds the paper's colour: the median of the border, or of all within a frame; white if neither covers much."""
    step = max(1, round((image.width * image.height / _SAMPLED_PIXELS) ** 0.5))
    sampled = (max(1, image.width // step), max(1, image.height // step))
    small = image.resize(sampled, Image.Resampling.NEAREST)
    whole = np.asarray(small)
    border = np.concatenate([whole[0], whole[-1], whole[:, 0], whole[:, -1]])
    for pixels in (border, whole.reshape(-1, 3)):
        # The lower of two middle values, because their average may be a colour that the picture does not have.
        middle = (len(pixels) - 1) // 2
        red, green, blue = np.partition(pixels, middle, axis=0)[middle].tolist()
        colour = red, green, blue
        if (_distance(small, colour) <= LEAST_CONTRAST).mean() >= _FRAME_SHARE:
            return colour
    return 255, 255, 255


def percentile(counts: NDArray[np.int64], least: int, percent: int) -> int:
    """Finds the level that `percent` of the pixels of at least `least` do not exceed, or 0. counts: (256,) pixels."""
    above = np.cumsum(counts[least:])
    return least + int(np.searchsorted(above, -(-above[-1] * percent // 100))) if above[-1] else 0


def stretch(darkness: Pixels, strongest: int) -> Pixels:
    table = np.minimum(255, (np.arange(256) * 510 + strongest) // (2 * strongest)).astype(np.uint8)
    return table[darkness]


def keep_greatest(darkness: Pixels, factor: int) -> Pixels:
    height, width = darkness.shape
    rows = np.maximum.reduceat(darkness, np.arange(0, height, factor), axis=0)
    return np.maximum.reduceat(rows, np.arange(0, width, factor), axis=1)


def _distance(image: Image.Image, paper: tuple[int, int, int]) -> Pixels:
    """Computes the largest difference of a channel from the paper, (H, W) uint8."""
    distance = np.empty((image.height, image.width), np.uint8)
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        red, green, blue = ImageChops.difference(strip, Image.new("RGB", strip.size, paper)).split()
        distance[top : top + rows] = np.asarray(ImageChops.lighter(ImageChops.lighter(red, green), blue))
    return distance


def box_of_ink(ink: NDArray[np.bool_]) -> Box | None:
    """Finds the box of ink, without single pixels of dust, which have no neighbour; or None."""
    height, width = ink.shape
    padded, near = np.pad(ink, 1), np.zeros_like(ink)
    for y, x in product(range(3), repeat=2):
        if (y, x) != (1, 1):
            near |= padded[y : y + height, x : x + width]
    return box_of(ink & near)


def box_of(marked: NDArray[np.bool_]) -> Box | None:
    """Finds the box of what is marked, or None."""
    y, x = np.flatnonzero(marked.any(axis=1)), np.flatnonzero(marked.any(axis=0))
    return (int(y[0]), int(y[-1]) + 1, int(x[0]), int(x[-1]) + 1) if len(y) else None


def place_in_square(shape: tuple[int, int], size: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns where ink (height, width) stands on a square of `size` pixels: first row and column, and its shape."""
    side, longer = max(1, size - 2 * round(size * _MARGIN)), max(shape)
    height, width = (max(1, round(length * side / longer)) for length in shape)
    return ((size - height) // 2, (size - width) // 2), (height, width)


def centre(darkness: Pixels, size: int) -> Pixels:
    """Draws ink dark in the middle of a white square: (size, size, 3)."""
    (y, x), (height, width) = place_in_square(darkness.shape, size)
    scale = max(darkness.shape) / max(height, width)
    if scale > _MAX_REDUCTION:
        darkness = keep_greatest(darkness, int(scale) // _KEPT_REDUCTION)
    scaled = np.asarray(Image.fromarray(darkness).resize((width, height), Image.Resampling.BICUBIC))
    # Scaling down has made thin lines pale: the strongest twentieth of the ink becomes black again.
    strongest = percentile(np.array(Image.fromarray(scaled).histogram()), LEAST_CONTRAST, 95)
    scaled = stretch(scaled, strongest) if strongest else scaled
    square = np.full((size, size), 255, np.uint8)
    square[y : y + height, x : x + width] = 255 - scaled
    return np.repeat(square[:, :, None], 3, axis=2)


def components(marked: NDArray[np.bool_], *, diagonal: bool = True) -> Labels:
    """Numbers the connected cells of a mask, (H, W), from 0; -1 elsewhere."""
    y, x = np.nonzero(marked)
    number = np.full(marked.shape, -1)
    number[y, x] = np.arange(len(y))
    _, labels = np.unique(connected(neighbours(number, diagonal=diagonal), len(y)), return_inverse=True)
    number[y, x] = labels
    return number


def neighbours(numbers: Labels, *, diagonal: bool = True) -> Labels:
    """Returns the numbers of marked pixels and of those beside them, (2, n)."""
    height, width = numbers.shape
    pairs = list[Labels]()
    for down, across in ((0, 1), (1, 0), *(((1, 1), (1, -1)) if diagonal else ())):
        first = numbers[: height - down, max(0, -across) : width - max(0, across)]
        second = numbers[down:, max(0, across) : width - max(0, -across)]
        both = (first >= 0) & (second >= 0)
        pairs.append(np.stack([first[both], second[both]]))
    return np.concatenate(pairs, axis=1)


def connected(pairs: Labels, count: int) -> Labels:
    """Returns the least number connected with each of ``count`` by pairs (2, n)."""
    least = np.arange(count)
    while True:
        first, second = least[pairs]
        if (first == second).all():
            return least
        lower = np.minimum(first, second)
        np.minimum.at(least, first, lower)
        np.minimum.at(least, second, lower)
        while (least != (nearer := least[least])).any():
            least = nearer


Corners = NDArray[np.float64]
# Pixels of the longer side at which a photo is looked at, and of a square that is wider than any stroke there.
_SIDE, _STROKE = 160, 11
# Of a file or a scan, at least this share has exactly one colour; of a photo, hardly any pixels are equal.
_EVEN = 0.25
# White that the camera could not tell apart, and the share of the border that has one colour where it shows a table.
_OVEREXPOSED, _NOISY = 0xFFFFFF, 0.5
# Grey levels: between neighbours on one surface, a sheet and what it lies on, and the light on one sheet.
_STEP, _BRIGHTER, _UNEVEN = 9, 15, 24
# The least share of the photo that a sheet takes, and of its corners' area that is bright.
_LEAST_AREA, _LEAST_FILLED = 0.08, 0.8
# What is cut off at the edges of a sheet, as a share of its side: they are never quite straight.
_RIM = 0.02
# Ink that touches the edges, or lies in this share of the sides beside them, belongs to the frame, unless it is more
# than this share of all ink.
_FRAME, _DRAWN = 0.09, 0.6
# Darker than this is ink, however faint.
_WHITE = 244


def on_even_paper(image: Image.Image) -> Image.Image:
    """Returns the sheet or board that a photo shows, straight and on white; another picture as it is."""
    if min(image.size) < _SIDE or _is_file(image):
        return image
    ground = _ground(image)
    sheet = _sheet(ground)
    if sheet is not None:
        corners = sheet * max(image.size) / max(ground.size)
        corners = corners + 2 * _RIM * (corners.mean(axis=0) - corners)
        sides = [float(np.hypot(*(b - a))) for a, b in pairwise([*corners, corners[0]])]
        size = max(1, round(max(sides[0], sides[2]))), max(1, round(max(sides[1], sides[3])))
        left_top, right_top, right_bottom, left_bottom = corners.tolist()
        quad = (*left_top, *left_bottom, *right_bottom, *right_top)
        image = image.transform(size, Image.Transform.QUAD, quad, Image.Resampling.BILINEAR)
        ground = _ground(image)
    light = np.asarray(ground.convert("L"), np.float64)
    border = np.concatenate([light[0], light[-1], light[:, 0], light[:, -1]])
    if sheet is None and np.ptp(np.percentile(border, (5, 95))) < _UNEVEN:
        return image
    even = ground.filter(ImageFilter.GaussianBlur(_STROKE / 2)).resize(image.size, Image.Resampling.BICUBIC)
    pixels = np.asarray(image, np.float32) * (255 / np.maximum(np.asarray(even, np.float32), 1))
    # The noise of the paper is white, too.
    return _whiten_frame(Image.fromarray(np.clip(pixels * 1.06, 0, 255).astype(np.uint8)))


def _is_file(image: Image.Image) -> bool:
    """Returns True for a file or a scan, of which much has one colour; but not for an overexposed sheet on a table."""
    small = np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.NEAREST), np.uint32)
    colours = small[..., 0] << 16 | small[..., 1] << 8 | small[..., 2]
    border = np.concatenate([colours[0], colours[-1], colours[:, 0], colours[:, -1]])
    white = (colours == _OVEREXPOSED).mean() >= _EVEN
    even, framed = (float(np.unique(of, return_counts=True)[1].max() / of.size) for of in (colours, border))
    return even >= _EVEN and not (white and framed < _NOISY)


def _ground(image: Image.Image) -> Image.Image:
    """Makes a small picture of what is below the ink."""
    small = image.copy()
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    # What is at the edges goes on there: else a frame would be a stroke.
    padded = Image.fromarray(np.pad(np.asarray(small), [(_STROKE, _STROKE), (_STROKE, _STROKE), (0, 0)], "edge"))
    closed = padded.filter(ImageFilter.MedianFilter(3)).filter(ImageFilter.MaxFilter(_STROKE))
    return ImageOps.crop(closed.filter(ImageFilter.MinFilter(_STROKE)), _STROKE)


def _sheet(ground: Image.Image) -> Corners | None:
    """Finds the corners of the brightest large surface, (4, 2) x and y from the top left on; None if it is all."""
    light = np.asarray(ground.convert("L"), np.float64)
    # Over two cells, because an edge may lie within one.
    wide = np.pad(light, 1, "edge")
    steps = np.abs(wide[2:, 1:-1] - wide[:-2, 1:-1]), np.abs(wide[1:-1, 2:] - wide[1:-1, :-2])
    surfaces = components((np.maximum(*steps) < _STEP).astype(bool), diagonal=False)
    sheets = [surfaces == number for number in np.unique(surfaces[surfaces >= 0])]
    sheets = [sheet for sheet in sheets if sheet.mean() >= _LEAST_AREA]
    if not sheets:
        return None
    sheet = max(sheets, key=lambda sheet: float(light[sheet].mean()))
    # The outermost points on both diagonals, or on both axes if it lies aslant.
    y, x = np.nonzero(sheet)
    points = np.stack([x, y], axis=1).astype(np.float64)
    ends = ((x + y, x - y), (y, x))
    chosen = [points[[along.argmin(), across.argmax(), along.argmax(), across.argmin()]] for along, across in ends]
    corners = max(chosen, key=_area)
    whole, filled = sheet.mean() > 1 - _RIM, sheet.sum() / max(_area(corners), 1.0)
    if whole or filled < _LEAST_FILLED or light[sheet].mean() - np.median(light[~sheet]) < _BRIGHTER:
        return None
    return corners


def _area(corners: Corners) -> float:
    (x, y), (following_x, following_y) = corners.T, np.roll(corners, -1, axis=0).T
    return float(abs((x * following_y - following_x * y).sum()) / 2)


def _whiten_frame(image: Image.Image) -> Image.Image:
    """Whitens ink that touches the edges or lies beside them: a frame, pens on a tray, or the shadow of the sheet."""
    small = image.convert("L")
    small.thumbnail((2 * _SIDE, 2 * _SIDE), Image.Resampling.BOX)
    ink = components(np.asarray(small.filter(ImageFilter.MinFilter(3))) < _WHITE, diagonal=False)
    edge = np.concatenate([ink[0], ink[-1], ink[:, 0], ink[:, -1]])
    rim, (down, across) = np.ones(ink.shape, bool), (round(_FRAME * side) for side in ink.shape)
    rim[down:-down, across:-across] = False
    frame = np.isin(ink, edge[edge >= 0]) | ((ink >= 0) & ~np.isin(ink, ink[~rim]))
    if frame.sum() > _DRAWN * (ink >= 0).sum():
        return image
    frame |= rim & (ink < 0)
    mask = Image.fromarray(frame.astype(np.uint8) * 255).resize(image.size, Image.Resampling.NEAREST)
    return Image.composite(Image.new("RGB", image.size, "white"), image, mask)
