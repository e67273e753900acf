"""The files that an index was made from, as long as they are still what was indexed."""

from __future__ import annotations

import hashlib

from PIL import Image

from indexer import Index, PhotoEntry, PhotoUnavailable
from model import Matcher
from model.errors import ImageError


def original(index: Index, entry: PhotoEntry) -> bytes:
    """A photo's file as it is. Raises PhotoUnavailable: it is gone, or is another one now."""
    data = index.open_photo(entry.id)
    if hashlib.sha256(data).hexdigest() != entry.content_hash:
        raise PhotoUnavailable(
            f"photo {entry.id} has changed since it was indexed; run `python -m indexer build` to bring the index "
            "up to date."
        )
    return data


def picture(index: Index, matcher: Matcher, entry: PhotoEntry) -> Image.Image:
    """A photo, upright, opened as it was to be indexed.

    Raises PhotoUnavailable, like ``original``, and where it no longer opens.
    """
    try:
        return matcher.open(original(index, entry), "photo")
    except ImageError as error:
        # It was fine when it was indexed.
        raise PhotoUnavailable(f"photo {entry.id} no longer opens; build the index again.") from error
