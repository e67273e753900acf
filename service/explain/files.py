"""An explanation as files: one HTML page, which needs nothing beside it and no server, and its data as JSON.

The page is the dialog of the service's own page, with its scripts and styles, so that both show the same.
"""

from __future__ import annotations

import base64
import errno
import os
import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from pydantic import BaseModel, Field

from indexer import PhotoEntry, PhotoUnavailable
from model.engine import Modality
from model.errors import Refusal
from service.explain.nearest import Near, Surroundings
from service.explain.response import (
    compared,
    encode_picture,
    explained_image,
    explained_pair,
    near_photos,
)
from service.photos import picture, thumbnail
from service.schemas import ExplainedImage, ExplainedPair, NearPhoto, PictureKind, SearchQuery
from service.search import Searcher

# Photos of the index that are shown beside each picture, and their longest side.
NEAREST = 6
THUMBNAIL = 128

_PAGE = Path(__file__).parent.parent / "page"
_STYLES = ("base", "dialogs", "why")
_SCRIPT = "why/file.js"
# Nothing is loaded from anywhere.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline' data:"
_IMPORT = re.compile(r'(?<= from ")[^"]+(?=";$)', re.MULTILINE)


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


class ExplainedFile(ExplainedPair):
    """A photo beside the sketch, or beside the photo in its place."""

    path: str
    ret_rank: int | None = Field(description="As ``ExplainedPhoto`` has it; null for a photo that is not in the index.")
    nearest: list[NearPhoto]


class ExplainedFiles(BaseModel):
    """The data of the page: what POST /explain answers, with pictures as data URLs."""

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
    """Write ``explanation.html`` and ``explanation.json`` into a folder, which is made if need be.

    Args:
        searcher: has the checkpoint, and finds the nearest photos.
        given: the sketch, or the photo in its place, as ``kind`` says.
        photos: at least one.
        own: the photo in the place of the sketch, if the index has it.

    Returns the files written. Raises BlankSketch, and Refusal where a symbolic link is in the place of a file.
    """
    document = _explained(searcher, given, photos, kind, own).model_dump_json(indent=1)
    out.mkdir(parents=True, exist_ok=True)
    files = {out / "explanation.html": _page(document), out / "explanation.json": document + "\n"}
    for file, text in files.items():
        write_file(file, text.encode())
    return tuple(files)


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


def _explained(
    searcher: Searcher, given: Image.Image, photos: Sequence[NamedPhoto], kind: Modality, own: PhotoEntry | None
) -> ExplainedFiles:
    matcher = searcher.matcher
    sketch = encode_picture(matcher, given, kind)
    seen = [encode_picture(matcher, photo.image, "photo") for photo in photos]
    pairs = [compared(matcher, sketch, photo) for photo in seen]
    around = Surroundings(searcher.gallery, sketch.observed.tokens, kind)
    return ExplainedFiles(
        grid=matcher.config.grid,
        kind=kind,
        sketch=explained_image(sketch),
        photos=[
            ExplainedFile(
                path=photo.name,
                ret_rank=None if photo.entry is None else around.rank(photo.entry),
                nearest=_near(searcher, around.of_photo(encoded.observed.tokens, NEAREST, photo.entry)),
                **dict(explained_pair(encoded, pair)),
            )
            for photo, encoded, pair in zip(photos, seen, pairs, strict=True)
        ],
        nearest=_near(searcher, around.of_given(NEAREST, own)),
        method="ret" if kind == "photo" else matcher.best_method,
        generation=searcher.gallery.generation,
        model=matcher.config.name,
    )


def _near(searcher: Searcher, near: Iterable[Near]) -> list[NearPhoto]:
    """Returns the photos with small pictures of them, but for those that cannot be read any more."""
    shown = []
    for photo in near_photos(searcher.gallery, near, originals=False):
        try:
            small = base64.b64encode(thumbnail(searcher.gallery.open_photo(photo.id), THUMBNAIL)).decode()
        except PhotoUnavailable:
            continue
        shown.append(photo.model_copy(update={"thumbnail_url": f"data:image/jpeg;base64,{small}"}))
    return shown


def _page(document: str) -> str:
    """Returns the page of an explanation, whose data are ``document``."""
    index = (_PAGE / "index.html").read_text(encoding="utf-8")
    icons, dialog = re.findall(r'<svg class="sprite".*?</svg>\n|<dialog id="why".*?</dialog>', index, re.DOTALL)
    styles = "\n".join((_PAGE / f"styles/{name}.css").read_text(encoding="utf-8") for name in _STYLES)
    scripts = ",\n".join(f'"{name}": "{url}"' for name, url in _modules(_SCRIPT, {}).items())
    # In JSON, < is only ever part of a text; as itself it could end the element.
    data = document.replace("<", "\\u003c")
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Why these photos?</title>
<style>
{styles}</style>
{icons}<main><h1 class="unseen">Why these photos?</h1>
{dialog}</main>
<script type="application/json" id="explanation">{data}</script>
<script type="importmap">{{"imports": {{
{scripts}
}}}}</script>
<script type="module">import "{_SCRIPT}";</script>
</html>
"""


def _modules(name: str, found: dict[str, str]) -> dict[str, str]:
    """Reads a script of the page and all that it imports, as data URLs by path. found: those found before.

    A data URL is no place that a relative path could start from, so that all paths in them start at the page's folder.
    """
    if name not in found:
        found[name] = ""
        text = (_PAGE / name).read_text(encoding="utf-8")
        imported = [posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) for path in _IMPORT.findall(text)]
        names = iter(imported)
        text = _IMPORT.sub(lambda _: next(names), text)
        found[name] = f"data:text/javascript;base64,{base64.b64encode(text.encode()).decode()}"
        for other in imported:
            _modules(other, found)
    return found
