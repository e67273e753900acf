"""The files that an index was made from, opened as pictures."""

from __future__ import annotations

from PIL import Image

from indexer import Index, PhotoEntry, PhotoUnavailable
from model import Matcher
from model.errors import ImageError


def picture(index: Index, matcher: Matcher, entry: PhotoEntry) -> Image.Image:
    """A photo, upright, opened as it was to be indexed.

    Raises PhotoUnavailable: none of its files is still what was indexed, or it no longer opens.
    """
    try:
        return matcher.open(index.open_photo(entry.id), "photo")
    except ImageError as error:
        # It was fine when it was indexed.
        raise PhotoUnavailable(f"photo {entry.id} no longer opens; build the index again.") from error
