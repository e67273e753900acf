"""A gallery in several shards on several machines: what each shard answers, and the one search over all of them."""

from service.errors import ShardsLost
from service.sharding.errors import GenerationGone, ShardRefuses, ShardsRefused, ShardUnavailable
from service.sharding.links import Pending, ShardLink
from service.sharding.live import ShardedLive
from service.sharding.on_ray import deployed
from service.sharding.server import ShardServer
from service.sharding.shard import Call, Overview, Shard
from service.sharding.shards import Shards, check_folders, shard_names

__all__ = [
    "Call",
    "GenerationGone",
    "Overview",
    "Pending",
    "Shard",
    "ShardLink",
    "ShardRefuses",
    "ShardServer",
    "ShardUnavailable",
    "ShardedLive",
    "Shards",
    "ShardsLost",
    "ShardsRefused",
    "check_folders",
    "deployed",
    "shard_names",
]
