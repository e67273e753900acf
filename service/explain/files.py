"""Writes an explanation as files: for each photo a picture of what matches what, and all data as JSON."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw
from pydantic import BaseModel, Field

from indexer import PhotoEntry, PhotoUnavailable
from model.engine import Modality
from model.errors import Refusal
from model.images import Pixels
from service.explain.response import (
    Surroundings,
    compared,
    encode_picture,
    explained_image,
    explained_pair,
    near_photos,
)
from service.photos import picture
from service.schemas import ExplainedImage, ExplainedPair, NearPhoto, PictureKind, SearchQuery
from service.search import Searcher

# Photos of the index that are named beside each picture.
NEAREST = 6
# Matches that a picture shows, strongest first, each in its colour.
_COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4")
# Pixels between the sketch and the photo.
_GAP = 8


@dataclass(frozen=True)
class NamedPhoto:
    """A photo, the path by which users know it, and its entry if it is in the index."""

    name: str
    image: Image.Image
    entry: PhotoEntry | None = None


def best_of_index(
    searcher: Searcher, sketch: Image.Image | None, count: int, query: SearchQuery | None = None
) -> list[NamedPhoto]:
    """Finds at most ``count`` photos, best first, without those that the query likes or that cannot be read."""
    asked = query or SearchQuery()
    found: list[NamedPhoto] = []
    seen = set(asked.like)
    for offset in range(0, searcher.gallery.photo_count, count):
        for hit in searcher.search(sketch, asked.model_copy(update={"k": count, "offset": offset})).results:
            # A page that opens more clusters may show a photo for the second time.
            if hit.id in seen:
                continue
            seen.add(hit.id)
            try:
                entry = searcher.gallery.photo(hit.id)
                image = picture(searcher.matcher, entry, searcher.gallery.open_photo(hit.id))
            except PhotoUnavailable:
                continue
            found.append(NamedPhoto(hit.paths[0], image, entry))
            if len(found) == count:
                return found
    return found


class ExplainedFile(ExplainedPair):
    """A photo beside the sketch, or beside the photo in its place."""

    path: str
    ret_rank: int | None = Field(description="As ``ExplainedPhoto`` has it; null for a photo that is not in the index.")
    nearest: list[NearPhoto]


class ExplainedFiles(BaseModel):
    """The answer of POST /explain, without what only a server can give."""

    grid: int
    kind: PictureKind
    sketch: ExplainedImage
    photos: list[ExplainedFile]
    nearest: list[NearPhoto]
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
    """Writes ``explanation.json``, ``1.png`` and so on into a folder, which is made if need be. Returns the files.

    Args:
        given: the sketch, or the photo in its place, as ``kind`` says.
        photos: at least one.
        own: the photo in the place of the sketch, if the index has it.

    Raises BlankSketch, and Refusal if a symbolic link is in the place of a file.
    """
    matcher, index = searcher.matcher, searcher.gallery
    sketch = encode_picture(matcher, given, kind)
    seen = [encode_picture(matcher, photo.image, "photo") for photo in photos]
    around = Surroundings(index, sketch.observed.tokens, kind)
    to_photos = around.of_photos([photo.observed.tokens for photo in seen], NEAREST, [photo.entry for photo in photos])
    document = ExplainedFiles(
        grid=matcher.config.grid,
        kind=kind,
        sketch=explained_image(sketch),
        photos=[
            ExplainedFile(
                path=photo.name,
                ret_rank=None if photo.entry is None else around.rank(photo.entry),
                nearest=near_photos(index, near, originals=False),
                **dict(explained_pair(encoded, compared(matcher, sketch, encoded))),
            )
            for photo, encoded, near in zip(photos, seen, to_photos, strict=True)
        ],
        nearest=near_photos(index, around.of_given(NEAREST, own), originals=False),
        method="ret" if kind == "photo" else matcher.best_method,
        generation=index.generation,
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
        for left, number in ((0, match.sketch_cell), (side + _GAP, match.photo_cell)):
            x, y = left + number % grid * cell, number // grid * cell
            draw.rectangle((x, y, x + cell - 1, y + cell - 1), outline=colour, width=2)
    out = io.BytesIO()
    sheet.save(out, "PNG")
    return out.getvalue()


def write_file(file: Path, data: bytes) -> None:
    """Writes or replaces a file. Raises Refusal for a symbolic link, which may lead out of its folder."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(file, flags, 0o666)
    except OSError as error:
        if file.is_symlink():
            raise Refusal(
                f"{file} is a symbolic link, through which nothing is written: remove it, or name another folder"
            ) from error
        raise
    with open(descriptor, "wb") as opened:
        opened.write(data)
