"""A search over one index that is open, without a server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import model
from indexer import Index, build, open_index
from model import Matcher
from model.ranking import Likeness
from service import search
from service.gallery import Gallery, Shard
from service.schemas import SearchQuery, SearchResponse
from service.search import Defaults
from tests.networks import tiny_checkpoint
from tests.service.small_gallery import CLUSTERS, PHOTOS, draw_sketch


class Searcher(search.Searcher):
    """Searches an index.

    Attributes:
        index: what is searched. shard: the same as the one shard of a gallery.
    """

    def __init__(self, index: Index, matcher: Matcher, defaults: Defaults | None = None) -> None:
        self.index, self.shard = index, Shard(index, matcher)
        super().__init__(Gallery.of(self.shard), matcher, defaults)

    def find(self, picture: Image.Image | None, **asked: Any) -> SearchResponse:
        """Search for all photos, by these fields of a query."""
        return self.search(picture, SearchQuery(**{"k": PHOTOS, **asked}))

    def find_sketch(self, drawn: bool = True, **asked: Any) -> SearchResponse:
        """Search for all photos with the usual sketch, or with none."""
        return self.find(draw_sketch() if drawn else None, **asked)

    def leaving(self, unliked: Sequence[int], liked: Sequence[int], others: torch.Tensor | None = None) -> set[int]:
        """The ids of the photos that leave with the unliked ones; others: the vectors of further liked photos."""
        places = {photo: place for place, photo in enumerate(self.index.ids.tolist())}
        of_unliked, of_liked = (
            torch.tensor([places[one] for one in ids], dtype=torch.int64) for ids in (unliked, liked)
        )
        gone = Likeness(self.index.vectors.of()).leaving(of_unliked, of_liked, others=others)
        return set(self.index.ids[gone.numpy()].tolist()) if unliked else set()


@contextmanager
def searching(photos: Path, folder: Path, *, clusters: int = CLUSTERS, **checkpoint: Any) -> Iterator[Searcher]:
    """Make an index of photos in a folder, and search it. checkpoint: of the network, as `tiny_checkpoint` takes it."""
    matcher = model.load(tiny_checkpoint(folder / "tiny.safetensors", **checkpoint), dtype=torch.float32)
    build([photos], folder / "index", matcher, clusters=clusters, embedder="ret")
    with open_index(folder / "index", matcher) as index:
        yield Searcher(index, matcher)
