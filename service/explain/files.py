"""An explanation as files: for each photo a picture of what matches what, and all data as JSON."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw
from pydantic import BaseModel, Field

from indexer import PhotoEntry, PhotoUnavailable
from model.engine import Modality
from model.errors import Refusal
from model.images import Pixels
from service.explain.nearest import Near, Surroundings
from service.explain.response import (
    compared,
    encode_picture,
    explained_image,
    explained_pair,
    near_photos,
)
from service.photos import picture
from service.schemas import ExplainedImage, ExplainedPair, PictureKind, SearchQuery
from service.search import Searcher

# Photos of the index that are named beside each picture.
NEAREST = 6
# Matches that a picture shows, strongest first, each in its colour.
_COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4")
# Pixels between the sketch and the photo.
_GAP = 8


@dataclass(frozen=True)
class NamedPhoto:
    """A photo, and the path it goes by: relative to the index's root, or as found in a folder.

    entry: what the index knows of it; None for a photo that is not in the index.
    """

    name: str
    image: Image.Image
    entry: PhotoEntry | None = None


def best_of_index(
    searcher: Searcher, sketch: Image.Image | None, count: int, query: SearchQuery | None = None
) -> list[NamedPhoto]:
    """Returns at most ``count`` photos, best first, as ``searcher`` finds them, without those that cannot be read.

    Args:
        sketch: the picture that is searched with; None where the query likes a photo.
        query: what else is searched for; None for the sketch alone. Photos that it likes are not among the results.

    Raises BlankSketch, and UnknownPhoto for an id in the query that no photo has.
    """
    asked = query or SearchQuery()
    index, matcher = searcher.gallery, searcher.matcher
    found: list[NamedPhoto] = []
    looked_at = set(asked.like)
    for offset in range(0, index.photo_count, count):
        for hit in searcher.search(sketch, asked.model_copy(update={"k": count, "offset": offset})).results:
            # A page that opens more clusters may show a photo for the second time.
            if hit.id in looked_at:
                continue
            looked_at.add(hit.id)
            try:
                entry = index.photo(hit.id)
                found.append(NamedPhoto(hit.paths[0], picture(index, matcher, entry), entry))
            except PhotoUnavailable:
                continue
            if len(found) == count:
                return found
    return found


class NearFile(BaseModel):
    """A photo of the index that looks like the sketch, or like a photo; as ``NearPhoto`` has it."""

    paths: tuple[str, ...]
    cosine: float
    rank: int


class ExplainedFile(ExplainedPair):
    """A photo beside the sketch, or beside the photo in its place."""

    path: str
    ret_rank: int | None = Field(description="As ``ExplainedPhoto`` has it; null for a photo that is not in the index.")
    nearest: list[NearFile]


class ExplainedFiles(BaseModel):
    """What POST /explain answers, but for what only a server can give."""

    grid: int
    kind: PictureKind
    sketch: ExplainedImage
    photos: list[ExplainedFile]
    nearest: list[NearFile]
    method: str
    generation: str
    model: str


def write_explanation(
    searcher: Searcher,
    given: Image.Image,
    photos: Sequence[NamedPhoto],
    out: Path,
    kind: Modality = "sketch",
    own: PhotoEntry | None = None,
) -> tuple[Path, ...]:
    """Writes ``explanation.json``, and ``1.png`` and so on, into a folder, which is made if need be.

    Args:
        searcher: has the checkpoint, and finds the nearest photos.
        given: the sketch, or the photo in its place, as ``kind`` says.
        photos: at least one.
        own: the photo in the place of the sketch, if the index has it.

    Returns the files written. Raises BlankSketch, and Refusal where a symbolic link is in the place of a file.
    """
    matcher = searcher.matcher
    sketch = encode_picture(matcher, given, kind)
    seen = [encode_picture(matcher, photo.image, "photo") for photo in photos]
    pairs = [compared(matcher, sketch, photo) for photo in seen]
    around = Surroundings(searcher.gallery, sketch.observed.tokens, kind)
    to_photos = around.of_photos([photo.observed.tokens for photo in seen], NEAREST, [photo.entry for photo in photos])
    document = ExplainedFiles(
        grid=matcher.config.grid,
        kind=kind,
        sketch=explained_image(sketch),
        photos=[
            ExplainedFile(
                path=photo.name,
                ret_rank=None if photo.entry is None else around.rank(photo.entry),
                nearest=_near(searcher, near),
                **dict(explained_pair(encoded, pair)),
            )
            for photo, encoded, pair, near in zip(photos, seen, pairs, to_photos, strict=True)
        ],
        nearest=_near(searcher, around.of_given(NEAREST, own)),
        method="ret" if kind == "photo" else matcher.best_method,
        generation=searcher.gallery.generation,
        model=matcher.config.name,
    )
    out.mkdir(parents=True, exist_ok=True)
    files = {out / "explanation.json": document.model_dump_json(indent=1).encode() + b"\n"}
    for number, (photo, one) in enumerate(zip(seen, document.photos, strict=True), 1):
        files[out / f"{number}.png"] = _picture(sketch.pixels, photo.pixels, one, document.grid)
    for file, data in files.items():
        write_file(file, data)
    return tuple(files)


def _picture(sketch: Pixels, photo: Pixels, pair: ExplainedPair, grid: int) -> bytes:
    """Draws sketch and photo, (H, W, 3) uint8, side by side, with frames around the parts that match most."""
    side = sketch.shape[1]
    sheet = Image.new("RGB", (2 * side + _GAP, max(len(sketch), len(photo))), "white")
    sheet.paste(Image.fromarray(sketch), (0, 0))
    sheet.paste(Image.fromarray(photo), (side + _GAP, 0))
    draw, cell = ImageDraw.Draw(sheet), side / grid
    for match, colour in zip(pair.matches, _COLOURS, strict=False):
        for left, place in ((0, match.sketch_cell), (side + _GAP, match.photo_cell)):
            x, y = left + place % grid * cell, place // grid * cell
            draw.rectangle((x, y, x + cell - 1, y + cell - 1), outline=colour, width=2)
    out = io.BytesIO()
    sheet.save(out, "PNG")
    return out.getvalue()


def _near(searcher: Searcher, near: Iterable[Near]) -> list[NearFile]:
    found = near_photos(searcher.gallery, near, originals=False)
    return [NearFile(paths=one.paths, cosine=one.cosine, rank=one.rank) for one in found]


def write_file(file: Path, data: bytes) -> None:
    """Write a file, or replace it. Raises Refusal where it is a symbolic link, which may lead out of its folder."""
    refused = Refusal(f"{file} is a symbolic link, through which nothing is written: remove it, or name another folder")
    if file.is_symlink():
        raise refused
    # A link that was made since is not followed either, where the system can tell.
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(file, flags, 0o666)
    except OSError as error:
        raise refused if error.errno == errno.ELOOP else error from None
    with open(descriptor, "wb") as opened:
        opened.write(data)
