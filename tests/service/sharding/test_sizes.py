"""What the formulas of docs/scale.md say of memory and of what is sent, beside what is really kept and sent."""

from __future__ import annotations

import numpy as np

from indexer import Index
from model import Matcher
from service.search.parts import encode_parts
from service.search.stopwatch import Stopwatch
from service.sharding.layout import Layout
from service.sharding.questions import NearSketch, SentParts
from tests.benchmarks import scale
from tests.service.sharding.parts_of_index import shards_of
from tests.service.small_gallery import draw_sketch

SHARDS = 2


def test_the_sizes_that_are_computed_are_those_of_what_is_kept_and_sent(index: Index, matcher: Matcher) -> None:
    links = shards_of(index, matcher, np.array_split(np.arange(index.photo_count), SHARDS))
    overviews = [link.overview("").result(0) for link in links]
    layout = Layout(overviews, frozenset())
    assert sum(one.ids.nbytes for one in overviews) == index.photo_count * scale.TOLD_ID
    assert layout.ids.nbytes == index.photo_count * scale.ID
    ret = matcher.config.width * scale.FLOAT
    kept = layout.centroid_ret.nbytes + layout.cluster_sizes.nbytes
    assert kept == SHARDS * index.cluster_count * (ret + scale.ROW)
    parts = encode_parts(draw_sketch(), matcher, Stopwatch(matcher.device))
    asked = NearSketch(SentParts.of(parts, ret_only=True), "ret", 4, None)
    found = [link.ask(link.state().result(0), asked).result(0) for link in links]
    sent = sum(one.rows.nbytes + one.scores.nbytes + one.ret.nbytes for one in found)
    assert sent == 4 * SHARDS * (scale.ROW + scale.FLOAT + ret)
