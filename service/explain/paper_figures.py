"""The figures that explain a search, drawn from an index and sketches: those of section 4.3 of the paper, 3 to 8."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from model import Matcher
from model.datasets import class_key
from model.explanation import SelfAttention
from model.images import Pixels, open_image
from service.errors import BadSearch
from service.explain.best_photos import NamedPhoto, best_of, best_of_index
from service.explain.files import compares_patches, head_row, influence_rows, kept_row, rebuilt_row, region_row
from service.explain.gallery_patches import rebuild_from_gallery
from service.explain.overlays import RED, REGION_COLOURS, Tile, framed, region_overlay, sheet
from service.explain.regions import inked_cells, shared_matches
from service.explain.response import EncodedPicture, Pair, encode_picture, explain_pair
from service.search import SearchedIndex, Searcher

TOP = 5
EXPLAINED = 3
# Regions pinned on a sketch, as in the paper's Fig. 6.
PINNED = 2
NEIGHBOURS = (1, 5, 20)


@dataclass(frozen=True)
class Found:
    """A sketch with its best photos, best first, the first EXPLAINED of them explained."""

    name: str
    label: str
    image: Image.Image
    sketch: EncodedPicture
    photos: tuple[NamedPhoto, ...]
    seen: tuple[EncodedPicture, ...]
    pairs: tuple[Pair, ...]


def figures(
    searcher: Searcher,
    sketches: Sequence[Path],
    out: Path,
    training: Path | None = None,
    *,
    max_pixels: int,
) -> tuple[Path, ...]:
    """Draw figures 3 to 8, a row a sketch, into ``out``, which is made if need be; the files written.

    - ``figure3.png``: the five best photos; framed in red where the folder they are in has another name than the
      sketch's, if a folder of the gallery has that name at all.
    - ``figure4.png``: tokens kept at each selection, of the sketch and its best photo.
    - ``figure5.png``: self-attention of [Ret] by head in the last block, of both.
    - ``figure6.png``: two regions of the sketch in colours, and what matches them in the three best photos.
    - ``figure7a.png``, ``figure7b.png``: the sketch of patches of these photos; of the nearest of the whole gallery.
    - ``figure8a.png``: what the best photo of the gallery and that of ``training`` match alike; only with it.
    - ``figure8b.png``: the pair of patches on which the score of the best photo rests most; only where there is one.

    A network that compares no patches has no figures 6 to 8.

    Args:
        searcher: finds each sketch's best photos.
        sketches: image files, at least one, of at most ``max_pixels`` pixels.
        training: a folder of photos the network was trained on, or an index of them.

    Raises:
        BadSearch: there is no sketch, or no photo that can be read. ImageError, OSError: a sketch cannot be read.
        ModelError, IndexRefused: ``training`` holds no photo, or an index that cannot be used.
    """
    if not sketches:
        raise BadSearch("Name at least one sketch to draw the figures with.")
    index, matcher = searcher.index, searcher.matcher
    rows = [_found(searcher, path, max_pixels) for path in sketches]
    labels = _folder_names(index)
    patched = [f for f in rows if compares_patches(f.pairs)]
    sheets = {
        "figure3.png": [_results(found, labels) for found in rows],
        "figure4.png": [row for f in rows for row in _both(f, kept_row)],
        "figure5.png": [row for f in rows for row in _both(f, head_row)],
        "figure6.png": [
            region_row(f.sketch, f.seen, f.pairs, [photo.name for photo in f.photos[:EXPLAINED]], PINNED)
            for f in patched
        ],
        "figure7a.png": [rebuilt_row(f.sketch, f.seen, f.pairs) for f in patched],
        "figure7b.png": [_from_gallery(index, matcher, f) for f in patched],
        "figure8a.png": [row for f in patched for row in _shared(matcher, f, training)],
        "figure8b.png": [row for f in patched for row in influence_rows(f.sketch, f.seen[:1], f.pairs[:1])],
    }
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, tiles in sheets.items():
        if tiles:
            sheet(tiles).save(out / name)
            written.append(out / name)
    return tuple(written)


def _found(searcher: Searcher, path: Path, max_pixels: int) -> Found:
    matcher = searcher.matcher
    image = open_image(path, max_pixels=max_pixels, sketch=True)
    sketch = encode_picture(matcher, image, "sketch")
    photos = best_of_index(searcher, image, TOP)
    if not photos:
        raise BadSearch("The index holds no photo that can be read; build it again.")
    seen = tuple(encode_picture(matcher, photo.image, "photo") for photo in photos[:EXPLAINED])
    pairs = tuple(explain_pair(matcher, sketch, photo) for photo in seen)
    return Found(path.name, path.resolve().parent.name, image, sketch, tuple(photos), seen, pairs)


def _folder_names(index: SearchedIndex) -> frozenset[str]:
    """Names of the folders that photos of the index are in, as class keys."""
    return frozenset(_folder(path) for photo in index.ids.tolist() for path in index.photo(photo).paths)


def _folder(path: str) -> str:
    return class_key(PurePosixPath(path).parent.name)


def _results(found: Found, labels: frozenset[str]) -> list[Tile]:
    size = len(found.sketch.pixels)
    wanted = class_key(found.label)
    tiles = [Tile(Image.fromarray(found.sketch.pixels), found.label if wanted in labels else found.name)]
    for photo in found.photos:
        image = photo.image.resize((size, size), Image.Resampling.BICUBIC)
        wrong = wanted in labels and _folder(photo.name) != wanted
        tiles.append(Tile(framed(image, RED) if wrong else image, photo.name))
    return tiles


def _both(found: Found, row: Callable[[Pixels, SelfAttention], list[Tile]]) -> list[list[Tile]]:
    """The row of the sketch, and that of its best photo."""
    return [row(seen.pixels, seen.observed.attention) for seen in (found.sketch, found.seen[0])]


def _from_gallery(index: SearchedIndex, matcher: Matcher, found: Found) -> list[Tile]:
    rebuilt = rebuild_from_gallery(index, matcher, found.sketch.observed.tokens, NEIGHBOURS)
    tiles = [Tile(image, f"nearest {k} of the gallery") for k, image in zip(NEIGHBOURS, rebuilt, strict=True)]
    return [Tile(Image.fromarray(found.sketch.pixels), "sketch"), *tiles]


def _shared(matcher: Matcher, found: Found, training: Path | None) -> list[list[Tile]]:
    """A row of the sketch, its best photo of the gallery, and of the training photos, in the same colours."""
    if training is None:
        return []
    known = best_of(training, matcher, found.image)
    seen = encode_picture(matcher, known.image, "photo")
    pair = explain_pair(matcher, found.sketch, seen)
    grid = pair.explanation.grid
    inked = inked_cells(found.sketch.pixels, grid)
    shared = shared_matches(found.pairs[0].explanation, pair.explanation, inked, len(REGION_COLOURS))
    coloured = list(zip(REGION_COLOURS, shared, strict=False))
    return [
        [
            Tile(
                region_overlay(found.sketch.pixels, {colour: [m.sketch_cell] for colour, m in coloured}, grid),
                "sketch",
            ),
            Tile(
                region_overlay(found.seen[0].pixels, {colour: [m.first_cell] for colour, m in coloured}, grid),
                f"gallery: {found.photos[0].name}",
            ),
            Tile(
                region_overlay(seen.pixels, {colour: [m.second_cell] for colour, m in coloured}, grid),
                f"training: {known.name}",
            ),
        ]
    ]
