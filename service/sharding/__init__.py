"""The shards of a gallery: each follows the generations of its folder, and those that go together are searched."""

from service.sharding.server import ShardHere, ShardServer, check_searches
from service.sharding.shards import Generations, Shards, ShardsRefused, check_folders, shard_names
