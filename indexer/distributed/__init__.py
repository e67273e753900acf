"""Building on many machines: Ray's workers encode the photos and write the shards, one process plans and commits.

Ray is the extra ``ray``, and is imported only where a build by it is asked for.
"""

from indexer.distributed.builder import ShardsReport
from indexer.distributed.connection import check_address, connected
from indexer.distributed.execution import build_shards

__all__ = ["ShardsReport", "build_shards", "check_address", "connected"]
