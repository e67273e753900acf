"""Figures 3 to 8 of the ZSE-SBIR paper, section 4.3, drawn from an index and sketches by matplotlib (extra train)."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from model import Explanation
from model.datasets import class_key
from model.explanation import cut, from_photos
from model.images import Pixels, open_image
from model.terminal import Refusal
from service.errors import BadSearch
from service.explain.files import NamedPhoto, best_of_index, write_file
from service.explain.nearest import rebuild_from_gallery
from service.explain.response import TOGETHER, EncodedPicture, Pair, encode_picture, explain_pair
from service.search import Searcher

TOP = 5
EXPLAINED = 3
NEIGHBOURS = (1, 5, 20)
# Cells between the middles of the two regions, so that they do not overlap.
APART = 4
# Prepared sketches are black on white. A cell with nothing darker than this has no stroke, only the edge of one.
_INK = 128
RED = (0.84, 0.15, 0.16)
# People who are colour-blind can distinguish them, too.
COLOURS = ((0.84, 0.37, 0.0), (0.0, 0.45, 0.7))


@dataclass(frozen=True)
class Tile:
    """One picture of a figure.

    Attributes:
        picture: (H, W, 3) uint8. caption: a line above it.
        cells: (grid, grid, 4) RGBA, 0 to 1, laid over it; None for nothing.
        framed: whether it has a red frame.
    """

    picture: Pixels | Image.Image
    caption: str
    cells: NDArray[np.float64] | None = None
    framed: bool = False


@dataclass(frozen=True)
class Found:
    """A sketch with its best photos, best first, the first EXPLAINED of them explained."""

    path: Path
    sketch: EncodedPicture
    photos: Sequence[NamedPhoto]
    seen: Sequence[EncodedPicture]
    pairs: Sequence[Pair]


def figures(searcher: Searcher, sketches: Sequence[Path], out: Path, *, max_pixels: int) -> tuple[Path, ...]:
    """Draw figures 3 to 8, a row a sketch, into ``out``, which is made if need be; the files written.

    - ``figure3.png``: the five best photos; framed in red where the folder they are in has another name than the
      sketch's, if a folder of the gallery has that name at all.
    - ``figure4.png``: tokens kept at each selection, of the sketch and its best photo.
    - ``figure5.png``: self-attention of [Ret] by head in the last block, of both.
    - ``figure6.png``: two regions of the sketch in colours, and what matches them in the three best photos.
    - ``figure7.png``: the sketch of patches of these photos, and of the nearest patches of the whole gallery.
    - ``figure8.png``: the pair of patches on which the score of the best photo rests most; only where there is one.

    A network that compares no patches has no figures 6 to 8.

    Args:
        searcher: finds each sketch's best photos.
        sketches: image files, at least one, of at most ``max_pixels`` pixels.

    Raises:
        BadSearch: there is no sketch, or no photo that can be read. ImageError, OSError: a sketch cannot be read.
        Refusal: matplotlib is not installed, or a symbolic link is in the place of a file.
    """
    if not sketches:
        raise BadSearch("Name at least one sketch to draw the figures with.")
    index = searcher.gallery
    rows = [_found(searcher, path, max_pixels) for path in sketches]
    patched = [found for found in rows if found.pairs[0].explanation.correspondence.numel()]
    folders = {_folder(path) for photo in index.ids.tolist() for path in index.photo(photo).paths}
    both = [seen for found in rows for seen in (found.sketch, found.seen[0])]
    sheets = {
        "figure3.png": [_results(found, folders) for found in rows],
        "figure4.png": [_kept(seen) for seen in both],
        "figure5.png": [_heads(seen) for seen in both],
        "figure6.png": [_regions(found) for found in patched],
        "figure7.png": [_rebuilt(searcher, found) for found in patched],
        "figure8.png": [_influence(found) for found in patched if found.pairs[0].influence],
    }
    drawn = {out / name: _drawn(tiles) for name, tiles in sheets.items() if tiles}
    out.mkdir(parents=True, exist_ok=True)
    for file, data in drawn.items():
        write_file(file, data)
    return tuple(drawn)


def _found(searcher: Searcher, path: Path, max_pixels: int) -> Found:
    matcher = searcher.matcher
    image = open_image(path, max_pixels=max_pixels, sketch=True)
    sketch = encode_picture(matcher, image, "sketch")
    photos = best_of_index(searcher, image, TOP)
    if not photos:
        raise BadSearch("The index holds no photo that can be read; build it again.")
    seen = [encode_picture(matcher, photo.image, "photo") for photo in photos[:EXPLAINED]]
    return Found(path, sketch, photos, seen, [explain_pair(matcher, sketch, photo) for photo in seen])


def _folder(path: str) -> str:
    return class_key(PurePosixPath(path).parent.name)


def _results(found: Found, folders: Collection[str]) -> list[Tile]:
    size, wanted = len(found.sketch.pixels), class_key(found.path.resolve().parent.name)
    tiles = [Tile(found.sketch.pixels, found.path.name)]
    for photo in found.photos:
        image = photo.image.resize((size, size), Image.Resampling.BICUBIC)
        tiles.append(Tile(image, photo.name, framed=wanted in folders and _folder(photo.name) != wanted))
    return tiles


def _kept(seen: EncodedPicture) -> list[Tile]:
    tiles = [Tile(seen.pixels, "all tokens")]
    for number, kept in enumerate(seen.observed.attention.kept, 1):
        pale = 0.7 * np.repeat(~kept.numpy()[..., None], 4, axis=2)
        tiles.append(Tile(seen.pixels, f"selection {number}: {int(kept.sum())} tokens", pale))
    return tiles


def _heads(seen: EncodedPicture) -> list[Tile]:
    tiles = [Tile(seen.pixels, "what the network sees")]
    for number, head in enumerate(seen.observed.attention.heads.double().numpy(), 1):
        # A few cells have most of the attention, and would leave nothing to be seen of the others.
        strong = np.quantile(head[head > 0], 0.95) if head.any() else 1.0
        cells = np.full((*head.shape, 4), (*RED, 0.0))
        cells[..., 3] = 0.8 * np.minimum(head / strong, 1)
        tiles.append(Tile(seen.pixels, f"head {number}", cells))
    return tiles


def _lit(seen: EncodedPicture, caption: str, regions: Sequence[Sequence[int]], grid: int) -> Tile:
    """A picture with regions in colours, and the rest pale."""
    cells = np.full((grid * grid, 4), (1.0, 1.0, 1.0, 0.5))
    for colour, region in zip(COLOURS, regions, strict=False):
        cells[list(region)] = (*colour, 0.45)
    return Tile(seen.pixels, caption, cells.reshape(grid, grid, 4))


def _regions(found: Found) -> list[Tile]:
    explanations = [pair.explanation for pair in found.pairs]
    grid = explanations[0].grid
    regions = pinned_regions(explanations, found.sketch.pixels)
    tiles = [_lit(found.sketch, "parts of the sketch", regions, grid)]
    for photo, seen, explanation in zip(found.photos, found.seen, explanations, strict=False):
        tiles.append(_lit(seen, photo.name, [matched_cells(explanation, region) for region in regions], grid))
    return tiles


def _rebuilt(searcher: Searcher, found: Found) -> list[Tile]:
    explanations, squares = [pair.explanation for pair in found.pairs], [seen.pixels for seen in found.seen]
    together = from_photos(explanations[:TOGETHER], squares[:TOGETHER])
    tiles = [Tile(found.sketch.pixels, "sketch"), Tile(together, f"of {min(len(squares), TOGETHER)} photos")]
    nearest = rebuild_from_gallery(searcher.gallery, searcher.matcher, found.sketch.observed.tokens, NEIGHBOURS)
    return tiles + [Tile(image, f"nearest {k} of the gallery") for k, image in zip(NEIGHBOURS, nearest, strict=True)]


def _influence(found: Found) -> list[Tile]:
    first, grid = found.pairs[0].influence[0], found.pairs[0].explanation.grid
    return [
        _lit(found.sketch, "most influential pair", [[first.sketch_cell]], grid),
        _lit(found.seen[0], f"loses {first.drop:.2g} of the score without it", [[first.photo_cell]], grid),
    ]


def _drawn(rows: Sequence[Sequence[Tile]]) -> bytes:
    """Rows of pictures as a PNG. Raises Refusal without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise Refusal("the figures need matplotlib: pip install 'sketch-search[train]'") from error
    columns = max(map(len, rows))
    figure = Figure(figsize=(2.2 * columns, 2.4 * len(rows)), layout="constrained")
    for line, row in zip(figure.subplots(len(rows), columns, squeeze=False), rows, strict=True):
        for axes in line[len(row) :]:
            axes.set_axis_off()
        for axes, tile in zip(line, row, strict=False):
            shown = axes.imshow(np.asarray(tile.picture))
            if tile.cells is not None:
                axes.imshow(tile.cells, extent=shown.get_extent(), interpolation="nearest")
            # A path ends with the name of its file.
            axes.set_title(tile.caption[-32:], fontsize=7)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(color=RED if tile.framed else "white", linewidth=3)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=120)
    return out.getvalue()


def pinned_regions(explanations: Sequence[Explanation], sketch: Pixels) -> list[list[int]]:
    """Two regions of a sketch that its photos match best on average, strongest first: a kept cell and its neighbours.

    Only cells with a stroke are in the middle of one. Networks store information in the tokens of empty paper: these
    match each other well, but mean nothing to a person.

    Args:
        explanations: of one sketch and at least one photo. sketch: (H, W, 3) uint8, as it is prepared.
    """
    grid, cells = explanations[0].grid, explanations[0].sketch_cells
    strength = torch.stack([e.correspondence.amax(dim=1) for e in explanations]).mean(dim=0)
    middles: list[int] = []
    for cell in cells[strength.argsort(descending=True, stable=True)].tolist():
        far = all(_steps(cell, other, grid) >= APART for other in middles)
        if len(middles) < len(COLOURS) and far and cut(sketch, cell, grid).min() < _INK:
            middles.append(cell)
    return [[cell for cell in cells.tolist() if _steps(cell, middle, grid) <= 1] for middle in middles]


def _steps(one: int, other: int, grid: int) -> int:
    """The number of steps between two cells, diagonal ones too."""
    return max(abs(one // grid - other // grid), abs(one % grid - other % grid))


def matched_cells(explanation: Explanation, region: Collection[int]) -> list[int]:
    """The photo cells that match the kept cells of a sketch region best, ascending."""
    inside = torch.tensor([cell in region for cell in explanation.sketch_cells.tolist()])
    return sorted(set(explanation.photo_cells[explanation.correspondence[inside].argmax(dim=1)].tolist()))
