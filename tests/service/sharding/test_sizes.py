"""What the formulas of docs/scale.md say of memory and of what is sent, beside what is really kept and sent."""

from __future__ import annotations

import numpy as np

from indexer import Index
from model import Matcher
from service.gallery import Find, Layout
from service.search.plan import Stopwatch, encode_picture
from tests.benchmarks import scale
from tests.service.sharding.parts_of_index import gallery_of, shards_of
from tests.service.small_gallery import draw_sketch

SHARDS = 2


def test_the_sizes_that_are_computed_are_those_of_what_is_kept_and_sent(index: Index, matcher: Matcher) -> None:
    links = shards_of(index, matcher, np.array_split(np.arange(index.photo_count), SHARDS))
    cells = Layout([link.overview("").result(0) for link in links], frozenset()).cells
    kept = sum(array.nbytes for array in vars(cells).values() if array is not None)
    width, tokens = matcher.config.width, matcher.token_count("photo")
    assert kept == SHARDS * index.cluster_count * scale.cell_bytes(width, tokens)
    sketch = encode_picture(draw_sketch(), "sketch", matcher, Stopwatch(matcher.device), matcher.encode)
    every = np.arange(SHARDS * index.cluster_count)
    found = gallery_of(links).find(Find("rn", cells.mean, cells=every, count=4, rerank=2).of_tokens(sketch))
    sent = sum(column.nbytes for column in vars(found).values() if isinstance(column, np.ndarray))
    assert sent == 4 * scale.row_bytes(width)


def test_only_shards_with_an_opened_cell_are_asked_and_in_one_round(index: Index, matcher: Matcher) -> None:
    ends = np.cumsum(index.cluster_sizes)
    links = shards_of(index, matcher, np.split(np.arange(index.photo_count), ends[:-1]))
    gallery = gallery_of(links)
    sketch = encode_picture(draw_sketch(), "sketch", matcher, Stopwatch(matcher.device), matcher.encode)
    # Shard n has all photos of cluster n, and the other clusters without photos.
    cells = np.array([0, 3]) * index.cluster_count + np.array([0, 3])
    gallery.find(Find("rn", gallery.cells.mean, cells=cells).of_tokens(sketch))
    assert [len(link.asked) for link in links] == [1, 0, 0, 1, 0]
