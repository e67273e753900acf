"""Draws what papers show of a network: rebuilt sketches, attention, matches, first photos, and maps of [Ret]."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageOps

from sketch_search import model
from sketch_search.model.command_line import a_path, examples, option
from sketch_search.model.engine import Modality, Observed, default_checkpoint, unit
from sketch_search.model.errors import ModelError
from sketch_search.model.explanation import PairExplanation
from sketch_search.model.files import write_files
from sketch_search.model.images import IMAGE_SUFFIXES, Pixels, as_png, open_image
from sketch_search.training.commands.measurements import data, weights
from sketch_search.training.corpus import Corpus, find_drawn_photos
from sketch_search.training.evaluation.figures import relevance
from sketch_search.training.tasks import PARTS, read_task, some_of_each

COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#42a5c9")
RIGHT, WRONG = "#3cb44b", "#e6194b"
#: Photos of a sheet, photos that patches and matches are taken from, and matches that are shown of each.
FIRST, BEST, MATCHES = 10, 3, 3
# Pixels between pictures, of a frame, and of a picture on a sheet.
_GAP, _FRAME, _SMALL = 8, 3, 96
# The number of photos that are prepared before the network encodes them.
_AT_ONCE = 64


@dataclass(frozen=True)
class Seen:
    """A picture as a network sees it: its pixels, and its tokens and attention."""

    pixels: Pixels
    observed: Observed

    @property
    def image(self) -> Image.Image:
        return Image.fromarray(self.pixels)


def look(matcher: model.Matcher, path: Path, modality: Modality) -> Seen:
    """Opens and observes a picture. Raises as ``open_image`` does, and BlankSketch."""
    pixels = matcher.preprocessing.pixels(matcher.open(path, modality), modality)
    return Seen(pixels, matcher.observe(matcher.preprocessing.normalise(pixels), modality))


def best_photos(matcher: model.Matcher, sketch: Seen, paths: Sequence[Path]) -> list[Seen]:
    """Finds the photos that match a sketch best, by the network's best method. Raises as ``look`` does."""
    scores = []
    for start in range(0, len(paths), _AT_ONCE):
        opened = (matcher.open(path, "photo") for path in paths[start : start + _AT_ONCE])
        photos = matcher.encode(np.stack([matcher.prepare(image, "photo") for image in opened]), "photo")
        scores.append(matcher.scores(sketch.observed.tokens, photos)[0])
    order = np.argsort(-np.concatenate(scores), kind="stable")[:BEST]
    return [look(matcher, paths[row], "photo") for row in order.tolist()]


def compare(matcher: model.Matcher, sketch: Seen, photos: Iterable[Seen]) -> list[PairExplanation]:
    """Compares a sketch with at least one photo. Raises ModelError for a network that compares no patches."""
    explanations = [matcher.compare(sketch.observed, photo.observed) for photo in photos]
    if not explanations[0].correspondence.size:
        raise ModelError(f"{matcher.config.name} has one vector for each picture, and compares no patches")
    return explanations


def draw_rebuilt(sketch: Seen, photos: Sequence[Seen], explanations: Sequence[PairExplanation]) -> Image.Image:
    """Rebuilds a sketch of the closest patches after cross-attention (eq. 8), as in ZSE-SBIR's Fig. 7 (a)."""
    canvas, grid = _pale(sketch), explanations[0].grid
    best: dict[int, tuple[float, Pixels]] = {}
    for photo, explanation in zip(photos, explanations, strict=True):
        for here, there, cosine in explanation.matches():
            if here not in best or cosine > best[here][0]:
                best[here] = cosine, _cut(photo.pixels, there, grid)
    for cell, (_, patch) in best.items():
        _cut(canvas, cell, grid)[:] = patch
    return Image.fromarray(canvas)


def draw_rebuilt_from_all(matcher: model.Matcher, sketch: Seen, paths: Iterable[Path], count: int) -> Image.Image:
    """Rebuilds a sketch of the mean of the ``count`` nearest patches by the encoder, as in Fig. 7 (b)."""
    canvas, grid, tokens = _pale(sketch), matcher.config.grid, sketch.observed.tokens
    drawn = unit(tokens.patches[0])
    nearest: list[list[tuple[float, Pixels]]] = [[] for _ in drawn]
    for path in paths:
        photo = look(matcher, path, "photo")
        all_tokens = photo.observed.everything or photo.observed.tokens
        cosines = drawn @ unit(all_tokens.patches[0]).T
        for kept, row in zip(nearest, cosines, strict=True):
            for there in np.argsort(-row, kind="stable")[:count].tolist():
                kept.append((float(row[there]), _cut(photo.pixels, int(all_tokens.positions[0, there]), grid)))
            kept.sort(key=lambda patch: -patch[0])
            del kept[count:]
    for cell, kept in zip(tokens.positions[0].tolist(), nearest, strict=True):
        _cut(canvas, cell, grid)[:] = np.rint(np.mean([patch for _, patch in kept], axis=0))
    return Image.fromarray(canvas)


def draw_selection(sketch: Seen, photo: Seen, explanation: PairExplanation) -> Image.Image:
    """Draws both pictures, and what each token selection left, of self- and cross-attention, as in Fig. 4."""
    left, grid = explanation.photo_cells, explanation.grid
    of_sketch, of_photo = (list(seen.observed.attention.kept) for seen in (sketch, photo))
    if len(left) < photo.observed.tokens.positions.shape[1]:
        of_photo.append(np.isin(np.arange(grid**2), left).reshape(grid, grid))
    both = (sketch, of_sketch), (photo, of_photo)
    shades = ([_shade(seen, kept.astype(np.float32)) for kept in selections] for seen, selections in both)
    return tile((tile([seen.image, *row]) for (seen, _), row in zip(both, shades, strict=True)), downwards=True)


def draw_attention(pictures: Sequence[Seen]) -> Image.Image:
    """Draws each picture, and where [Ret] looks in the last block, by head, as in Fig. 5."""
    rows = (
        tile([seen.image, *(_shade(seen, head / max(head.max(), 1e-9)) for head in seen.observed.attention.heads)])
        for seen in pictures
    )
    return tile(rows, downwards=True)


def strongest_regions(explanation: PairExplanation, count: int = 2) -> list[int]:
    """Chooses the cells of a sketch with the strongest matches that do not touch each other."""
    grid, chosen = explanation.grid, list[int]()
    for cell, _, _ in explanation.matches():
        apart = (max(abs(cell % grid - near % grid), abs(cell // grid - near // grid)) > 1 for near in chosen)
        if len(chosen) < count and all(apart):
            chosen.append(cell)
    return chosen


def region_at(explanation: PairExplanation, place: tuple[float, float]) -> int:
    """Finds the compared cell of a sketch that is nearest to a place, (x, y) in 0..1."""
    cells = explanation.sketch_cells
    centres = (np.stack([cells % explanation.grid, cells // explanation.grid], axis=1) + 0.5) / explanation.grid
    return int(cells[((centres - place) ** 2).sum(axis=1).argmin()])


def draw_matches(
    sketch: Seen,
    photos: Sequence[Seen],
    explanations: Sequence[PairExplanation],
    regions: Sequence[int],
    count: int = 1,
) -> Image.Image:
    """Draws regions of a sketch, and in their colours the ``count`` best of each photo, as in Figs. 6 and 8 (a)."""
    grid, colours = explanations[0].grid, dict(zip(regions, COLOURS, strict=False))
    marked = [_frame(sketch.image, colours.items(), grid)]
    for photo, explanation in zip(photos, explanations, strict=True):
        places = [(there, colour) for here, colour in colours.items() for there in explanation.best_of(here, count)]
        marked.append(_frame(photo.image, places, grid))
    return tile(marked)


def draw_influence(sketch: Seen, photo: Seen, explanation: PairExplanation) -> Image.Image | None:
    """Draws the pair that the score rests on most, and by how much, as in Fig. 8 (b); None if no pair counts."""
    if not explanation.influence:
        return None
    pair = explanation.influence[0]
    cells = (sketch, pair.sketch_cell), (photo, pair.photo_cell)
    framed = tile([_frame(seen.image, [(cell, WRONG)], explanation.grid) for seen, cell in cells])
    title = _text(f"without this pair: {-pair.drop:+.1%}", framed.width, 16)
    return tile([title, framed], downwards=True)


def draw_first_photos(
    queries: Sequence[Image.Image],
    photos: Sequence[Sequence[Image.Image]],
    right: Sequence[Sequence[bool]],
    ranks: Sequence[int],
) -> Image.Image:
    """Draws queries, first right ranks and first photos (ZSE-SBIR Fig. 3, Sketch-an-Anchor 5, CLIP-AT 4 and 5)."""
    rows = []
    for query, of_query, hits, rank in zip(queries, photos, right, ranks, strict=True):
        row = [ImageOps.pad(query, (_SMALL, _SMALL), color="white"), _text(str(rank), _SMALL // 2, _SMALL)]
        for photo, hit in zip(of_query, hits, strict=True):
            shown = ImageOps.pad(photo, (_SMALL - 2 * _FRAME,) * 2, color="white")
            row.append(ImageOps.expand(shown, _FRAME, RIGHT if hit else WRONG))
        rows.append(tile(row))
    return tile(rows, downwards=True)


def draw_scatter(points: NDArray[np.floating], labels: Sequence[str], sketches: int) -> Image.Image:
    """Draws points (n, 2) in the colour of their class: of sketches, which come first, crosses, of photos dots."""
    low, high, side = points.min(axis=0), points.max(axis=0), 480
    places = 8 + (side - 16) * (points - low) / np.maximum(high - low, 1e-9)
    sheet = Image.new("RGB", (side, side), "white")
    draw, kinds = ImageDraw.Draw(sheet), sorted(set(labels))
    for number, ((x, y), label) in enumerate(zip(places.tolist(), labels, strict=True)):
        colour = f"hsv({360 * kinds.index(label) // len(kinds)}, 90%, 75%)"
        if number < sketches:
            draw.line((x - 3, y - 3, x + 3, y + 3), colour)
            draw.line((x - 3, y + 3, x + 3, y - 3), colour)
        else:
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), colour)
    return sheet


def reduce_colours(image: Image.Image) -> Image.Image:
    """Reduces an image to 256 colours, which take a third of the bytes. COLOURS stay, however few pixels have them."""
    most = 256 - len(COLOURS)
    chosen = image.quantize(most).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette([*chosen[: 3 * most], *(value for name in COLOURS for value in ImageColor.getrgb(name))])
    return image.quantize(palette=palette, dither=Image.Dither.NONE)


def tile(images: Iterable[Image.Image], *, downwards: bool = False) -> Image.Image:
    """Puts images beside or below each other, on white."""
    images, places, (width, height) = list(images), list[tuple[int, int]](), (0, 0)
    for image in images:
        places.append((0, height) if downwards else (width, 0))
        right, bottom = places[-1][0] + image.width, places[-1][1] + image.height
        width, height = (max(width, right), bottom + _GAP) if downwards else (right + _GAP, max(height, bottom))
    sheet = Image.new("RGB", (width, height - _GAP) if downwards else (width - _GAP, height), "white")
    for image, place in zip(images, places, strict=True):
        sheet.paste(image, place)
    return sheet


def _cut(pixels: Pixels, cell: int, grid: int) -> Pixels:
    side = len(pixels) // grid
    top, left = cell // grid * side, cell % grid * side
    return pixels[top : top + side, left : left + side]


def _pale(seen: Seen) -> Pixels:
    return np.asarray(255 - (255 - seen.pixels.astype(np.uint16)) // 3, np.uint8)


def _shade(seen: Seen, shares: NDArray[np.floating]) -> Image.Image:
    """Draws a picture that fades to white as the share (grid, grid), in 0..1, of a patch falls."""
    mask = Image.fromarray(np.uint8(255 * shares)).resize(seen.image.size, Image.Resampling.NEAREST)
    return Image.composite(seen.image, Image.fromarray(_pale(seen)), mask)


def _frame(image: Image.Image, cells: Iterable[tuple[int, str]], grid: int) -> Image.Image:
    drawn, side = image.copy(), image.width / grid
    draw = ImageDraw.Draw(drawn)
    for cell, colour in cells:
        x, y = cell % grid * side, cell // grid * side
        draw.rectangle((x - 1, y - 1, x + side, y + side), outline=colour, width=_FRAME)
    return drawn


def _text(text: str, width: int, height: int) -> Image.Image:
    sheet = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(sheet).text((width / 2, height / 2), text, "black", anchor="mm")
    return sheet


_PROTOCOLS = ("category", "generalised", "cross-data-set", "fine-grained")
_SKETCH = click.argument("sketch", type=a_path)
_SEARCHED = click.argument("photos", type=a_path, nargs=-1, required=True, metavar="PHOTOS...")
_SEVERAL = option("--weights FILE", "Checkpoint (the embedded one); several are side by side.", a_path, multiple=True)
_PICTURE = option("-o --output OUT.png", "The picture to write.", a_path, name="out", required=True)
_SPLIT = option("--split NAME", f"{', '.join(PARTS)} (val, or all of --data).", click.Choice(PARTS))


def _place(text: str) -> tuple[float, float]:
    """Reads a place of a sketch, such as 0.5,0.2."""
    with suppress(ValueError):
        x, y = map(float, text.split(","))
        if 0 <= min(x, y) <= max(x, y) <= 1:
            return x, y
    raise click.BadParameter(f"a place is x,y with both from 0 to 1, such as 0.5,0.2, not {text!r}")


@click.command(epilog=examples("python -m training rebuild umbrella.png ~/Pictures -o rebuilt.png"))
@_SKETCH
@_SEARCHED
@_PICTURE
@option("--nearest K", "The mean of the K nearest patches of all photos.", click.IntRange(min=1))
@weights
def rebuild(sketch: Path, photos: tuple[Path, ...], out: Path, nearest: int | None, weights: Path | None) -> None:
    """Rebuild a sketch from patches of the photos that match it best.

    PHOTOS are files or folders.
    """
    matcher, paths = model.load(default_checkpoint(weights)), _photos(photos)
    drawn = look(matcher, sketch, "sketch")
    if nearest:
        row = [draw_rebuilt_from_all(matcher, drawn, paths, nearest)]
    else:
        best = best_photos(matcher, drawn, paths)
        row = [draw_rebuilt(drawn, best, compare(matcher, drawn, best)), *(photo.image for photo in best)]
    _save(tile([drawn.image, *row]), out)


@click.command("shared-matches", epilog=examples("python -m training shared-matches tank.png new --training trained"))
@_SKETCH
@_SEARCHED
@option("--training FOLDER", "Photos that the network was trained on.", a_path, required=True)
@_PICTURE
@weights
def shared_matches(sketch: Path, photos: tuple[Path, ...], training: Path, out: Path, weights: Path | None) -> None:
    """Show what matches the same parts of a sketch in new photos and in photos of the training.

    The first row has the best of PHOTOS, files or folders, the second those of the training.
    """
    matcher, rows, regions = model.load(default_checkpoint(weights)), [], list[int]()
    drawn = look(matcher, sketch, "sketch")
    for paths in (_photos(photos), _photos([training])):
        best = best_photos(matcher, drawn, paths)
        explained = compare(matcher, drawn, best)
        regions = regions or strongest_regions(explained[0], MATCHES)
        rows.append(draw_matches(drawn, best, explained, regions))
    _save(tile(rows, downwards=True), out)


@click.command()
@_SKETCH
@_SEARCHED
@option("-o --output DIR", "The folder to write.", a_path, name="out", required=True)
@option(
    "--region X,Y", "A part of the sketch, from 0,0 to 1,1; repeatable (two that match best).", _place, multiple=True
)
@weights
def illustrate(
    sketch: Path, photos: tuple[Path, ...], out: Path, region: tuple[tuple[float, float], ...], weights: Path | None
) -> None:
    """Draw a search as ZSE-SBIR's figures 4 to 8 do.

    Writes selection.png, attention.png, correspondence.png, rebuilt.png and influence.png. PHOTOS are files or folders.
    """
    matcher = model.load(default_checkpoint(weights))
    drawn = look(matcher, sketch, "sketch")
    best = best_photos(matcher, drawn, _photos(photos))
    explanations = compare(matcher, drawn, best)
    chosen = [region_at(explanations[0], place) for place in region]
    regions = chosen or strongest_regions(explanations[0])
    out.mkdir(parents=True, exist_ok=True)
    pictures = {
        "selection": draw_selection(drawn, best[0], explanations[0]),
        "attention": draw_attention([drawn, best[0]]),
        "correspondence": draw_matches(drawn, best, explanations, regions, MATCHES),
        "rebuilt": tile([drawn.image, draw_rebuilt(drawn, best, explanations)]),
        "influence": draw_influence(drawn, best[0], explanations[0]),
    }
    for name, picture in pictures.items():
        if picture is None:
            print(f"{name}: no pair of patches raises the score")
        else:
            _save(picture, out / f"{name}.png")


@click.command("first-photos", epilog=examples("python -m training first-photos --protocol fine-grained -o first.png"))
@_PICTURE
@option("--protocol NAME", f"{', '.join(_PROTOCOLS)} (category).", click.Choice(_PROTOCOLS), default="category")
@_SPLIT
@option("--each N", "Sketches of each class (1).", click.IntRange(min=1), default=1)
@data
@_SEVERAL
def first_photos(
    out: Path, protocol: Any, split: str | None, each: int, data: Path | None, weights: tuple[Path, ...]
) -> None:
    """Show the first ten photos of sketches, framed green if right, else red, and the rank of the first right one."""
    from sketch_search.training.evaluation.scoring import score_matrices

    corpus = read_task(protocol, split, None, data).corpus
    queries = Corpus(some_of_each(corpus.sketches, each), corpus.photos)
    right = relevance(queries)
    if protocol == "fine-grained":
        right = find_drawn_photos(queries)[:, None] == np.arange(len(queries.photos))
    rows = np.flatnonzero(right.any(axis=1)).tolist()
    drawn, sheets = [open_image(queries.sketches[row].path) for row in rows], []
    for file in weights or (None,):
        matcher = model.load(default_checkpoint(file))
        method = matcher.best_method
        order = np.argsort(-score_matrices(matcher, queries, [method])[method], axis=1, kind="stable")
        hits, first = np.take_along_axis(right, order, axis=1), order[rows, :FIRST].tolist()
        shown = [[open_image(queries.photos[n].path) for n in numbers] for numbers in first]
        ranks = (1 + hits[rows].argmax(axis=1)).tolist()
        sheets.append(draw_first_photos(drawn, shown, hits[rows, :FIRST].tolist(), ranks))
    _save(tile(sheets), out)


@click.command(epilog=examples("python -m training scatter --weights a.st --weights b.st -o map.png"))
@_PICTURE
@_SEVERAL
@_SPLIT
@option("--each N", "Sketches and photos of each class (20).", click.IntRange(min=1), default=20)
@data
def scatter(out: Path, weights: tuple[Path, ...], split: str | None, each: int, data: Path | None) -> None:
    """Draw [Ret] of sketches and photos in a plane, by t-SNE: crosses and dots in the colours of their classes."""
    from sklearn.manifold import TSNE

    from sketch_search.training.evaluation.scoring import encode_both

    whole = read_task("category", split, None, data).corpus
    corpus = Corpus(some_of_each(whole.sketches, each), some_of_each(whole.photos, each))
    labels = [picture.label for picture in (*corpus.sketches, *corpus.photos)]
    panels = []
    for file in weights or (None,):
        ret = unit(np.concatenate([tokens.ret for tokens in encode_both(model.load(default_checkpoint(file)), corpus)]))
        plane = TSNE(perplexity=min(30, len(ret) // 4), metric="cosine", init="random", random_state=0)
        panels.append(draw_scatter(plane.fit_transform(ret), labels, len(corpus.sketches)))
    _save(tile(panels), out)


def _photos(named: Sequence[Path]) -> list[Path]:
    files = [file for path in named for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    photos = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    if not photos:
        raise ModelError(f"there are no photos in {', '.join(map(str, named))}")
    return photos


def _save(picture: Image.Image, out: Path) -> None:
    write_files({out: as_png(reduce_colours(picture))})
    print(f"wrote {out}")


COMMANDS = (rebuild, shared_matches, illustrate, first_photos, scatter)
