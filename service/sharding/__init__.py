"""A gallery in shards: how they are asked, which of them answer, and what they have together."""

from service.sharding.gallery import ShardedGallery
from service.sharding.links import (
    GenerationGone,
    Overview,
    Pending,
    ShardLink,
    ShardRefuses,
    ShardUnavailable,
    State,
    overview,
)
from service.sharding.shards import Shards, ShardsRefused, check_folders, shard_names
