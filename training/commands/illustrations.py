"""Declares the commands that draw what papers show of a network."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from sketch_search import model
from sketch_search.model.command_line import a_path, examples, option
from sketch_search.model.engine import default_checkpoint, unit
from sketch_search.model.errors import ModelError
from sketch_search.model.files import write_files
from sketch_search.model.images import IMAGE_SUFFIXES, as_png, open_image
from sketch_search.training import illustrations as draw
from sketch_search.training.commands.measurements import data, weights
from sketch_search.training.corpus import Corpus, find_drawn_photos
from sketch_search.training.evaluation.figures import relevance
from sketch_search.training.tasks import PARTS, read_task, some_of_each

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
    drawn = draw.look(matcher, sketch, "sketch")
    if nearest:
        row = [draw.rebuild_from_all(matcher, drawn, paths, nearest)]
    else:
        best = draw.best_photos(matcher, drawn, paths)
        row = [draw.rebuild(drawn, best, draw.compare(matcher, drawn, best)), *(photo.image for photo in best)]
    _save(draw.tile([drawn.image, *row]), out)


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
    drawn = draw.look(matcher, sketch, "sketch")
    for paths in (_photos(photos), _photos([training])):
        best = draw.best_photos(matcher, drawn, paths)
        explained = draw.compare(matcher, drawn, best)
        regions = regions or draw.strongest_regions(explained[0], draw.MATCHES)
        rows.append(draw.draw_matches(drawn, best, explained, regions))
    _save(draw.tile(rows, downwards=True), out)


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
    drawn = draw.look(matcher, sketch, "sketch")
    best = draw.best_photos(matcher, drawn, _photos(photos))
    explanations = draw.compare(matcher, drawn, best)
    chosen = [draw.region_at(explanations[0], place) for place in region]
    regions = chosen or draw.strongest_regions(explanations[0])
    out.mkdir(parents=True, exist_ok=True)
    pictures = {
        "selection": draw.draw_selection(drawn, best[0], explanations[0]),
        "attention": draw.draw_attention([drawn, best[0]]),
        "correspondence": draw.draw_matches(drawn, best, explanations, regions, draw.MATCHES),
        "rebuilt": draw.tile([drawn.image, draw.rebuild(drawn, best, explanations)]),
        "influence": draw.draw_influence(drawn, best[0], explanations[0]),
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
        hits, first = np.take_along_axis(right, order, axis=1), order[rows, : draw.FIRST].tolist()
        shown = [[open_image(queries.photos[n].path) for n in numbers] for numbers in first]
        ranks = (1 + hits[rows].argmax(axis=1)).tolist()
        sheets.append(draw.first_photos(drawn, shown, hits[rows, : draw.FIRST].tolist(), ranks))
    _save(draw.tile(sheets), out)


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
        panels.append(draw.scatter(plane.fit_transform(ret), labels, len(corpus.sketches)))
    _save(draw.tile(panels), out)


def _photos(named: Sequence[Path]) -> list[Path]:
    files = [file for path in named for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    photos = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    if not photos:
        raise ModelError(f"there are no photos in {', '.join(map(str, named))}")
    return photos


def _save(picture: Image.Image, out: Path) -> None:
    write_files({out: as_png(draw.reduce_colours(picture))})
    print(f"wrote {out}")


COMMANDS = (rebuild, shared_matches, illustrate, first_photos, scatter)
