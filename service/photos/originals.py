"""The files that an index was made from, opened as pictures."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from PIL import Image

from indexer import PhotoEntry, PhotoUnavailable
from model import Matcher
from model.decoding import Job, RunJob, run_here
from model.errors import ImageError
from model.images import Pixels


class PhotoFiles(Protocol):
    """Where the files of photos are: an index."""

    def open_photo(self, photo: int) -> bytes:
        """The bytes that were indexed as this photo. Raises UnknownPhoto and PhotoUnavailable."""


def picture(index: PhotoFiles, matcher: Matcher, entry: PhotoEntry) -> Image.Image:
    """A photo, upright, opened as it was to be indexed.

    Raises PhotoUnavailable: none of its files is still what was indexed, or it no longer opens.
    """
    try:
        return matcher.open(index.open_photo(entry.id), "photo")
    except ImageError as error:
        # It was fine when it was indexed.
        raise PhotoUnavailable(f"photo {entry.id} no longer opens; build the index again.") from error


def prepared(index: PhotoFiles, matcher: Matcher, entry: PhotoEntry, run: RunJob = run_here) -> Pixels:
    """A photo as ``Preprocessing.pixels`` prepares it, (H, W, 3) uint8. Raises PhotoUnavailable, like ``picture``."""
    try:
        return np.asarray(run(index.open_photo(entry.id), Job.preparing(matcher.preprocessing, "photo")))
    except ImageError as error:
        raise PhotoUnavailable(f"photo {entry.id} no longer opens; build the index again.") from error
