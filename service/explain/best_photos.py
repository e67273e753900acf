"""The photos to explain where none are named: the best ones of an index, or of a folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from indexer import PhotoEntry, PhotoUnavailable, open_index
from model import Matcher, ModelError
from model.errors import ImageError
from model.images import IMAGE_SUFFIXES
from service.photos import picture
from service.schemas import SearchQuery
from service.search import Searcher

# Photos of a folder that are encoded at once.
_BATCH = 16


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
    """At most ``count`` photos, best first, as ``searcher`` finds them, without those that are gone or have changed.

    Args:
        sketch: the picture that is searched with; None where the query likes a photo.
        query: what else is searched for; None for the sketch alone. Photos that it likes are not among the results.

    Raises BlankSketch, and UnknownPhoto for an id in the query that no photo has.
    """
    asked = query or SearchQuery()
    index, matcher = searcher.index, searcher.matcher
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


def best_of_folder(folder: Path, matcher: Matcher, sketch: Image.Image) -> NamedPhoto:
    """The best photo in a folder and the folders below it, by the checkpoint's best method; ties by path.

    Files that do not open are passed over. Raises BlankSketch, and ModelError where no photo is left.
    """
    drawn = matcher.encode(matcher.prepare(sketch, "sketch")[None], "sketch")
    best: tuple[float, Path] | None = None
    for paths, pixels in _batches(folder, matcher):
        scores = matcher.scores(drawn, matcher.encode(pixels, "photo"))[0]
        first = int(scores.argmax())
        if best is None or float(scores[first]) > best[0]:
            best = float(scores[first]), paths[first]
    if best is None:
        raise ModelError(f"{folder} holds no photo that can be opened; name a folder of photos")
    return NamedPhoto(best[1].relative_to(folder).as_posix(), matcher.open(best[1], "photo"))


def best_of(folder: Path, matcher: Matcher, sketch: Image.Image) -> NamedPhoto:
    """The best photo of the index in a folder or, where there is none in it, of the photos in the folder.

    Raises BlankSketch, IndexRefused for an index that cannot be used, ModelError where there is no photo.
    """
    if not (folder / "CURRENT").is_file():
        return best_of_folder(folder, matcher, sketch)
    with open_index(folder, matcher) as index:
        found = best_of_index(Searcher(index, matcher), sketch, 1)
    if not found:
        raise ModelError(f"no photo of the index at {folder} can be read any more; build it again")
    return found[0]


def _batches(folder: Path, matcher: Matcher) -> Iterator[tuple[list[Path], torch.Tensor]]:
    paths: list[Path] = []
    prepared: list[torch.Tensor] = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()):
        try:
            prepared.append(matcher.prepare(matcher.open(path, "photo"), "photo"))
        except (ImageError, OSError):
            continue
        paths.append(path)
        if len(paths) == _BATCH:
            yield paths, torch.stack(prepared)
            paths, prepared = [], []
    if paths:
        yield paths, torch.stack(prepared)
