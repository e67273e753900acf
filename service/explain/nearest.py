"""Finds what of a whole index lies near a picture: the photos most like it by [Ret].

A network with one vector for each picture matches no patches. What can be said of it is where it looked, and which
photos its vectors lie near. The same is true of every network: photos lend each other scores by these vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from indexer import PhotoEntry
from model.engine import Modality, Tokens
from service.gallery import Gallery, Ids, Scores, best_first


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
        self._ids, scores = gallery.nearness(given.without_patches, modality)
        # Scores of a sketch are minus the distances of vectors of length 1, which guesses make longer.
        cosines = (1 - scores**2 / 2).clip(-1).astype(np.float32)
        self._cosines: Scores = cosines if modality == "sketch" else scores
        self._order = best_first(self._ids, scores)
        self._ranks = np.empty(len(self._order), np.int64)
        self._ranks[self._order] = np.arange(1, len(self._order) + 1)
        self._by_id = np.argsort(self._ids)

    def rank(self, photo: PhotoEntry) -> int:
        """Returns the place of a photo of the gallery among all by how near they are to what was given, from 1."""
        return int(self._ranks[self._ids == photo.id][0])

    def of_given(self, count: int, own: PhotoEntry | None = None) -> tuple[Near, ...]:
        """Returns the photos nearest to what was given, nearest first.

        count: at most so many. own: what was given, if it is a photo of the gallery; it is left out.
        """
        first = self._order[: count + 1]
        return self._near(self._ids[first], self._cosines[first], count, own)

    def of_photos(
        self, photos: Sequence[Tokens], count: int, owns: Sequence[PhotoEntry | None]
    ) -> list[tuple[Near, ...]]:
        """Returns the photos nearest to each of other photos, batches of one; ``count`` as in ``of_given``.

        owns: for each the photo that it is, which is left out; None if it is none of the gallery's.
        """
        found = self._gallery.alike(np.concatenate([photo.ret for photo in photos]), count + 1)
        return [self._near(ids, cosines, count, own) for (ids, cosines), own in zip(found, owns, strict=True)]

    def _near(self, ids: Ids, cosines: Scores, count: int, own: PhotoEntry | None) -> tuple[Near, ...]:
        others = np.flatnonzero(ids != own.id)[:count] if own is not None else np.arange(len(ids))[:count]
        chosen = ids[others]
        ranks = self._ranks[self._by_id[np.searchsorted(self._ids, chosen, sorter=self._by_id)]]
        return tuple(map(Near, chosen.tolist(), cosines[others].tolist(), ranks.tolist()))
