"""The shards of a gallery: each follows the generations of its folder, and those that go together are searched."""

from service.sharding.server import ShardHere, ShardServer
from service.sharding.shards import Generations, Shards, ShardsRefused, check_folders, shard_names

__all__ = [
    "Generations",
    "ShardHere",
    "ShardServer",
    "Shards",
    "ShardsRefused",
    "check_folders",
    "shard_names",
]
