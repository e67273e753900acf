"""A search over one index that is open, without a server."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sketch_search import model
from sketch_search.indexer import BuildRequest, Index, build, open_index
from sketch_search.model import Matcher
from sketch_search.model.engine import Floats, unit
from sketch_search.model.images import Drawing
from sketch_search.model.ranking import ALIKE, LOOK, SAME, likeness_to, sameness
from sketch_search.service import search
from sketch_search.service.gallery import LocalGallery
from sketch_search.service.schemas.query import SearchQuery, TunedQuery
from sketch_search.service.schemas.search import SearchResponse
from sketch_search.service.settings import Settings
from tests.networks import tiny_checkpoint
from tests.service.small_gallery import CLUSTERS, PHOTOS, draw_sketch


def mean_direction(vectors: Floats) -> Floats:
    """Returns the mean (d,) of vectors (p, d) at unit length: what the photos of a gallery share."""
    return unit(vectors).mean(axis=0)


class PictureSearcher(search.Searcher):
    def search(self, sketch: Image.Image | Drawing | None, query: SearchQuery, *further: Any) -> SearchResponse:
        if isinstance(sketch, Image.Image):
            prepare, photo = self.matcher.preprocessing, query.kind == "photo"
            sketch = Drawing.of(prepare.pixels(sketch, "photo")) if photo else prepare.drawing(sketch)
        return super().search(sketch, query, *further)


class Searcher(PictureSearcher):
    def __init__(self, index: Index, matcher: Matcher, settings: Settings | None = None) -> None:
        self.index = index
        super().__init__(LocalGallery(index, matcher), matcher, settings)

    def find(self, picture: Image.Image | None, **asked: Any) -> SearchResponse:
        return self.search(picture, TunedQuery(**{"k": PHOTOS, **asked}))

    def find_sketch(self, drawn: bool = True, **asked: Any) -> SearchResponse:
        return self.find(draw_sketch() if drawn else None, **asked)

    def leaving(
        self, photo: int, of_kind: bool, liked: Sequence[int], others: Floats | None, ranked: Sequence[int]
    ) -> set[int]:
        """The ids that an unliked photo hides; others: vectors of further liked ones. ranked: the ids without it."""
        ids, vectors = self.index.ids, self.index.vectors.of()
        mean, of_liked = mean_direction(vectors), vectors[np.isin(ids, liked)]
        if others is not None:
            of_liked = np.concatenate([of_liked, others])
        to_liked = likeness_to(of_liked, vectors, mean) if len(of_liked) else -1
        tokens = self.gallery.tokens(np.arange(len(ids)))
        (row,) = np.flatnonzero(ids == photo)
        pairs = np.array([(other, row) for other in range(len(ids))])
        gone = (unit(vectors) @ unit(vectors[row]) > LOOK) & (sameness(tokens, pairs, self.matcher.config.grid) > SAME)
        if of_kind:
            to_unliked = likeness_to(vectors[[row]], vectors, mean)
            gone |= (to_unliked > ALIKE) & (to_unliked >= to_liked)
        behind = ranked[ranked.index(photo) + 1 :] if photo in ranked else ()
        return {photo, *(set(ids[gone].tolist()) & set(behind) - set(liked))}


@contextmanager
def searching(
    photos: Path, folder: Path, *, clusters: int = CLUSTERS, embedder: str = "ret", **checkpoint: Any
) -> Iterator[Searcher]:
    """Make an index of photos in a folder, and search it. checkpoint: of the network, as `tiny_checkpoint` takes it."""
    matcher = model.load(tiny_checkpoint(folder / "tiny.safetensors", **checkpoint), dtype="float32")
    build(folder / "index", BuildRequest([photos], clusters=clusters, embedder=embedder), matcher)
    with open_index(folder / "index", matcher) as index:
        yield Searcher(index, matcher)
