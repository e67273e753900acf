"""A sketch rebuilt from the nearest patches of a whole index (Fig. 7b)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from indexer import PhotoUnavailable
from model import Matcher, Tokens
from model.decoding import RunJob, run_here
from model.explanation import NearestPatches, Replacement, assembled, nearest_replacements
from model.images import Pixels
from service.errors import BadSearch, ClientGone
from service.photos import prepared
from service.search import SearchedIndex

# Bounds memory: the tokens of 64 photos of the largest network are some 40 MiB in float32.
BATCH = 64


def rebuild_from_gallery(
    index: SearchedIndex,
    matcher: Matcher,
    sketch: Tokens,
    neighbours: Sequence[int],
    gone: Callable[[], bool] = lambda: False,
    run: RunJob = run_here,
) -> tuple[Image.Image, ...]:
    """For each number k in ``neighbours`` the sketch with every patch replaced by the mean of its k nearest ones.

    Nearest by the tokens as the index keeps them, before cross-attention, which would have to be computed for every
    photo of the index. All photos are searched, in chunks. Photos that are gone or have changed are left out: twice as
    many patches as wanted are looked for, so that others can take their place.

    White where the network kept no patch, or where no photo is left.

    Args:
        sketch: a batch of one.
        gone: whether nobody waits for the result any more; called before each chunk.
        run: decodes the photos.

    Raises:
        ClientGone: ``gone`` says so. BadSearch: the index keeps no tokens.
    """
    if index.tokens_kept == 1 and sketch.positions.shape[1]:
        raise BadSearch("A sketch is rebuilt from tokens, and this index keeps none; build it with --tokens all.")
    nearest = NearestPatches(sketch, 2 * max(neighbours))
    for start in range(0, index.photo_count, BATCH):
        if gone():
            raise ClientGone("Whoever asked has hung up.")
        rows = np.arange(start, min(start + BATCH, index.photo_count))
        nearest.add(index.ids[rows], index.photo_tokens(rows))
    found, grid, size = nearest.found(), matcher.config.grid, matcher.config.image_size

    def square(photo: int) -> Pixels | None:
        try:
            return prepared(index, matcher, index.photo(photo), run)
        except PhotoUnavailable:
            return None

    replacements, pixels = nearest_replacements(found, max(neighbours), square, grid)
    # The nearest k are the first k of more of them.
    return tuple(
        assembled((Replacement(r.cell, r.patches[:k]) for r in replacements), pixels, grid, size // grid)
        for k in neighbours
    )
