"""Sends requests to the shards of a gallery, tracks which of them answer, and joins their answers."""

from sketch_search.service.sharding.gallery import IndexedGallery, Pending, ShardRefuses, ShardUnavailable, State
from sketch_search.service.sharding.shards import Shards, ShardsRefused, check_folders, shard_names
