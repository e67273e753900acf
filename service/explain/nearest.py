"""Finds what of a whole index lies near a picture: the photos most like it by [Ret].

A network with one vector for each picture matches no patches. What can be said of it is where it looked, and which
photos its vectors lie near. The same is true of every network: photos lend each other scores by these vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer import PhotoEntry
from model.engine import Modality, Tokens
from service.gallery import Gallery, Scores, best_first


@dataclass(frozen=True)
class Near:
    """A photo of the index that is near a picture.

    Attributes:
        id: of the photo.
        cosine: how near, -1 to 1.
        rank: its place among all photos by how near they are to the sketch, or to the photo in its place, from 1.
    """

    id: int
    cosine: float
    rank: int


class Surroundings:
    """The photos of a gallery around a sketch, or a photo in its place, and around other photos.

    A sketch is compared as a search by [Ret] compares it: by the cosine of both [Ret], lowered by the photo's prior
    and where guesses and photo do not agree, if the network has these. Photos are compared as kinds and liked photos
    are: by the cosine of their [Ret] without the mean of all photos (``model.ranking.likeness_to``).
    """

    def __init__(self, gallery: Gallery, given: Tokens, modality: Modality) -> None:
        """given: the sketch or photo, a batch of one."""
        self._gallery = gallery
        self._ids, scores = self._nearness(given, modality)
        # Scores of a sketch are minus the distances of vectors of length 1, which guesses make longer.
        cosines = (1 - scores**2 / 2).clip(-1).astype(np.float32)
        self._cosines: Scores = cosines if modality == "sketch" else scores
        self._order = best_first(self._ids, scores)
        self._ranks = np.empty(len(self._order), np.int64)
        self._ranks[self._order] = np.arange(1, len(self._order) + 1)

    def _nearness(self, given: Tokens, modality: Modality) -> tuple[NDArray[np.int64], Scores]:
        return self._gallery.nearness(given.without_patches, modality)

    def rank(self, photo: PhotoEntry) -> int:
        """Returns the place of a photo of the gallery among all by how near they are to what was given, from 1."""
        return int(self._ranks[self._ids == photo.id][0])

    def of_given(self, count: int, own: PhotoEntry | None = None) -> tuple[Near, ...]:
        """Returns the photos nearest to what was given, nearest first.

        count: at most so many. own: what was given, if it is a photo of the gallery; it is left out.
        """
        return self._first(self._order[: count + 1], self._cosines, count, own)

    def of_photo(self, photo: Tokens, count: int, own: PhotoEntry | None = None) -> tuple[Near, ...]:
        """Returns the photos nearest to another photo, a batch of one; ``count`` and ``own`` as in ``of_given``."""
        ids, cosines = self._nearness(photo, "photo")
        return self._first(best_first(ids, cosines, count + 1), cosines, count, own)

    def _first(self, rows: NDArray[np.int64], cosines: Scores, count: int, own: PhotoEntry | None) -> tuple[Near, ...]:
        left = rows if own is None else rows[self._ids[rows] != own.id]
        return tuple(
            Near(int(self._ids[row]), float(cosines[row]), int(self._ranks[row])) for row in left[:count].tolist()
        )
