"""A search over one index that is open, without a server."""

from __future__ import annotations

from indexer import Index
from model import Matcher
from service import search
from service.gallery import Gallery, Shard
from service.search import Defaults


class Searcher(search.Searcher):
    """Searches an index.

    Attributes:
        index: what is searched. shard: the same as the one shard of a gallery.
    """

    def __init__(self, index: Index, matcher: Matcher, defaults: Defaults | None = None) -> None:
        self.index, self.shard = index, Shard(index, matcher)
        super().__init__(Gallery.of(self.shard), matcher, defaults)
