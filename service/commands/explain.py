"""`sketch-search explain`: writes why photos match a sketch, or are like a photo, as files."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from model.errors import Refusal
from model.images import open_image
from model.matcher import Matcher
from model.terminal import printable
from service.commands.search import naming, photo_id
from service.engine import Engine, open_matcher
from service.errors import BadSearch
from service.explain import NamedPhoto, best_of_index, write_explanation
from service.photos import picture
from service.schemas import PictureKind, SearchQuery
from service.settings import Settings

# Photos of the index that are explained if none is named.
EXPLAINED = 3


def explain(
    settings: Settings,
    sketch: Path | None,
    photos: Sequence[Path],
    output: Path,
    *,
    like: str | None,
    kind: PictureKind,
) -> int:
    """Writes why ``photos``, or else the best of the index, match a sketch, or are like a photo.

    Args:
        sketch: an image file, of what ``kind`` says; None with ``like``.
        photos: image files, or paths of photos of the index as results show them.
        like: the id or the path of a photo of the index that they are compared with.
    """
    there = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not there.is_dir():
        raise Refusal(f"--output {output}: {there} is a file; name a folder for the files.")
    matcher = open_matcher(settings)
    with closing(Engine(settings, matcher)) as engine:
        named = [_named(engine, matcher, photo) for photo in photos]
        searcher, own = engine.searcher, None
        if like is not None:
            query = SearchQuery.model_validate({"like": [photo_id(engine, like)]})
            own = engine.gallery.photo(query.like[0])
            given, kind = picture(matcher, own, engine.gallery.open_photo(own.id)), "photo"
            named = named or best_of_index(searcher, None, EXPLAINED, query)
        elif sketch is not None:
            with naming(sketch):
                given = open_image(sketch, max_pixels=settings.max_pixels, sketch=kind == "sketch")
            named = named or best_of_index(searcher, given, EXPLAINED, SearchQuery(kind=kind))
        else:
            raise Refusal("There is nothing to compare photos with: name a sketch, or a photo with --like.")
        if not named:
            raise BadSearch("The index has no photo to explain; name photo files, or build it over some.")
        written = write_explanation(searcher, given, named, output, kind, own)
    print(*(printable(str(file)) for file in written), sep="\n")
    return 0


def _named(engine: Engine, matcher: Matcher, photo: Path) -> NamedPhoto:
    """Opens a photo that is a file, or else is in the index at this path. Raises BadInvocation if it is neither."""
    if photo.exists():
        with naming(photo):
            return NamedPhoto(str(photo), matcher.open(photo, "photo"), engine.entry_of(photo))
    entry = engine.gallery.photo_at(str(photo))
    return NamedPhoto(str(photo), picture(matcher, entry, engine.gallery.open_photo(entry.id)), entry)
