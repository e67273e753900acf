"""What the formulas of docs/scale.md say of memory and of what is sent, beside what is really kept and sent."""

from __future__ import annotations

import dataclasses

import numpy as np

from indexer import Index
from model import Matcher
from model.ranking import SHORTLIST
from service.search.parts import encode_parts
from service.search.stopwatch import Stopwatch
from service.sharding.layout import Layout
from service.sharding.questions import NearSketch, SentParts
from tests import scale
from tests.made_results import SHARD
from tests.service.sharding.parts_of_index import shards_of
from tests.service.small_gallery import draw_sketch

SHARDS = 2


def test_the_sizes_that_are_computed_are_those_of_what_is_kept_and_sent(index: Index, matcher: Matcher) -> None:
    links = shards_of(index, matcher, np.array_split(np.arange(index.photo_count), SHARDS))
    overviews = [link.overview("").result(0) for link in links]
    layout = Layout(overviews, frozenset())
    assert sum(one.ids.nbytes for one in overviews) + layout.ids.nbytes == scale.ids_kept(index.photo_count)
    photos = -(-index.photo_count // SHARDS)
    shard = dataclasses.replace(SHARD, photos=photos, clusters=index.cluster_count, width=matcher.config.width)
    kept = layout.centroid_ret.nbytes + layout.cluster_sizes.nbytes
    assert kept == scale.clusters_kept(index.photo_count, shard)
    parts = encode_parts(draw_sketch(), matcher, Stopwatch(matcher.device))
    asked = NearSketch(SentParts.of(parts, ret_only=True), "ret", 4, None)
    found = [link.ask(link.state().result(0), asked).result(0) for link in links]
    sent = sum(one.rows.nbytes + one.scores.nbytes + one.ret.nbytes for one in found)
    # As much for each of so few photos as for each of those of a whole shortlist.
    assert sent / (4 * SHARDS) == scale.gathered(index.photo_count, shard) / (SHORTLIST * SHARDS)
