"""Finds what of a whole index lies near a picture: the photos most like it by [Ret], and the nearest patches.

A network with one vector for each picture matches no patches. What can be said of it is where it looked, and which
photos its vectors lie near. The same is true of every network: photos lend each other scores by these vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from indexer import PhotoEntry, PhotoUnavailable
from model import Matcher, Tokens
from model.decoding import RunJob, run_here
from model.explanation import NearestPatches, assembled, nearest_replacements
from model.images import Pixels
from model.network import Modality
from service.errors import BadSearch, ClientGone
from service.gallery import Gallery, Scores, SentTokens, best_first
from service.photos import prepared

# Bounds memory: the tokens of 64 photos of the largest network are some 40 MiB in float32.
BATCH = 64


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
        sent = SentTokens.of(given.without_patches.to(dtype=torch.float32))
        return self._gallery.nearness(sent, modality, self._gallery.cells.mean)

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


def rebuild_from_gallery(
    gallery: Gallery,
    matcher: Matcher,
    sketch: Tokens,
    neighbours: int,
    gone: Callable[[], bool] = lambda: False,
    run: RunJob = run_here,
) -> Image.Image:
    """Puts the sketch together anew: every patch is replaced by the mean of the ``neighbours`` that are nearest to it.

    Nearest by the tokens as the index keeps them, before cross-attention, which would have to be computed for every
    photo of the index. All photos are searched, in chunks. Photos that are gone or have changed are left out: twice as
    many patches as wanted are looked for, so that others can take their place.

    White where the network kept no patch, or where no photo is left.

    Args:
        sketch: a batch of one.
        gone: whether nobody waits for the result any more; called before each chunk.
        run: decodes the photos.

    Raises:
        ClientGone: ``gone`` says so. BadSearch: the index keeps no tokens, or there are several shards.
    """
    gallery.check_alone()
    if gallery.tokens_kept == 1 and sketch.positions.shape[1]:
        raise BadSearch("A sketch is rebuilt from tokens, and this index keeps none; build it with --tokens all.")
    ids, nearest = gallery.ids, NearestPatches(sketch, 2 * neighbours)
    for start in range(0, gallery.photo_count, BATCH):
        if gone():
            raise ClientGone("Whoever asked has hung up.")
        rows = np.arange(start, min(start + BATCH, gallery.photo_count))
        nearest.add(ids[rows], gallery.tokens(rows))
    found, grid, size = nearest.found(), matcher.config.grid, matcher.config.image_size

    def square(photo: int) -> Pixels | None:
        try:
            return prepared(gallery, matcher, gallery.photo(photo), run)
        except PhotoUnavailable:
            return None

    replacements, pixels = nearest_replacements(found, neighbours, square, grid)
    return assembled(replacements, pixels, grid, size // grid)
