"""What a gallery of so many photos takes: formulas over what the benches have measured of smaller ones.

A shard is as large as the largest gallery that was measured, on such a machine as it was measured on. So nothing is
said of larger shards; what grows is how many there are. Sizes are in bytes, times in milliseconds or hours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from indexer.store import MOST_ID
from model.ranking import SHORTLIST
from service.commands.serving_shards import SEARCHES_AT_ONCE
from service.search.plan import RERANK
from service.sharding.on_ray import ENCODERS

# Bytes of an id as a shard tells it, and as all shards are searched by it; of a row, a score and a number of [Ret].
_TOLD_ID, _ID, _ROW, _FLOAT = 8, 4, 8, 4
# Bytes that the driver of a build keeps of each file; docs/many-machines.md says so, and no bench measures it.
LISTED = 2000
# How often rows are on the disk while shards are built again: in slices, in the new shards and in those before.
TIMES_ON_DISK = 3


@dataclass(frozen=True)
class Shard:
    """A gallery that was measured on one machine, without Ray.

    Attributes:
        photos, clusters: of the gallery. width: numbers of a [Ret].
        photo_bytes: on the disk, of a photo. memory_bytes: of the process after its searches.
        encode_ms, choose_ms, score_ms, diffuse_ms: of the median query.
    """

    photos: int
    clusters: int
    width: int
    photo_bytes: float
    memory_bytes: float
    encode_ms: float
    choose_ms: float
    score_ms: float
    diffuse_ms: float


@dataclass(frozen=True)
class Serving:
    """What a query takes besides its search, as it was measured.

    Attributes:
        http_ms: to be received and answered. ray_ms: by Ray, with one shard. shard_ms: for each further shard.
    """

    http_ms: float
    ray_ms: float
    shard_ms: float


def shards(photos: int, shard: Shard) -> int:
    """How many there are."""
    return math.ceil(photos / shard.photos)


def machines(photos: int, shard: Shard) -> int:
    """One for each shard, and from two shards on one more for the encoder and the ingress."""
    count = shards(photos, shard)
    return count if count == 1 else count + 1


def disk(photos: int, shard: Shard) -> float:
    """Of the index, without the photos themselves."""
    return photos * shard.photo_bytes


def photo_bytes(small: tuple[int, float], large: tuple[int, float]) -> float:
    """Of one photo on the disk, from two galleries as (photos, bytes): without what does not grow with the photos."""
    return (large[1] - small[1]) / (large[0] - small[0])


def ids_kept(photos: int) -> float:
    """Memory of the ingress for the ids: as each shard tells them, and as all are searched."""
    return photos * (_TOLD_ID + _ID)


def clusters_kept(photos: int, shard: Shard) -> float:
    """Memory of the ingress for the clusters of all shards: the [Ret] and the size of each."""
    return shards(photos, shard) * shard.clusters * (shard.width * _FLOAT + _ROW)


def searches_kept(photos: int) -> float:
    """Memory of the ingress while it searches as often at once as it can: a score for each photo and search."""
    return photos * _FLOAT * SEARCHES_AT_ONCE


def gathered(photos: int, shard: Shard) -> float:
    """What comes to the ingress for one query: of each shard the row, the score and the [Ret] of its best photos."""
    return shards(photos, shard) * SHORTLIST * (_ROW + _FLOAT + shard.width * _FLOAT)


def gathered_in_two(photos: int, shard: Shard) -> float:
    """What would come if rows and scores came first, and [Ret] only of the best of all. Nothing does that now."""
    return shards(photos, shard) * SHORTLIST * (_ROW + _FLOAT) + SHORTLIST * shard.width * _FLOAT


def tokens_read(shard: Shard) -> float:
    """What a query reads of the disk at most, in as many places as it scores photos: all that is kept of these."""
    return RERANK * shard.photo_bytes


def listed(photos: int) -> float:
    """Memory of the driver of a build, for its list of files."""
    return photos * LISTED


def ids_used(photos: int) -> float:
    """The share of all ids that can be given."""
    return photos / MOST_ID


def build_hours(photos: int, photos_a_second: float, workers: int) -> float:
    """To read and encode all photos, if machines do not slow each other down."""
    return photos / photos_a_second / workers / 3600


def wire_ms(sent: float, gigabits: float) -> float:
    """To send so many bytes over a network of so many gigabits a second."""
    return sent * 8 / (gigabits * 1e6)


def further_shard_ms(one: float, many: float, count: int) -> float:
    """What each further shard adds to a query, from the times of one with one shard and of one with ``count``."""
    return (many - one) / (count - 1)


def query_ms(photos: int, shard: Shard, serving: Serving, gigabits: float) -> dict[str, float]:
    """The time of a query while nobody else asks, by part.

    Scoring takes as long as if all photos that are scored were in one shard. In many shards it takes less.
    """
    further = shards(photos, shard) - 1
    parts = {
        "encode": shard.encode_ms,
        "choose": shard.choose_ms,
        "score": shard.score_ms,
        "diffuse": shard.diffuse_ms,
        "HTTP": serving.http_ms,
    }
    if further:
        parts["Ray, with one shard"] = serving.ray_ms
        parts["further shards"] = further * serving.shard_ms
        parts["network"] = wire_ms(gathered(photos, shard), gigabits)
    return parts


def rates(photos: int, shard: Shard, serving: Serving, gigabits: float) -> dict[str, float]:
    """Queries a second that each part can bear, with one copy of each shard, one ingress and all encoders there may be.

    What Ray takes counts as work of the ingress. On one machine all is one part.
    """
    parts = query_ms(photos, shard, serving, gigabits)
    count = shards(photos, shard)
    if count == 1:
        return {"the machine": 1000 / sum(parts.values())}
    ingress = ("diffuse", "HTTP", "Ray, with one shard", "further shards")
    return {
        "the shards": 1000 / (parts["choose"] + parts["score"] / count),
        "the encoders": ENCODERS * 1000 / parts["encode"],
        "the ingress": 1000 / sum(parts[name] for name in ingress),
        "the network of the ingress": 1000 / parts["network"],
    }
