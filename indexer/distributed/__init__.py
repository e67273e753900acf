"""Building on many machines: Ray's workers encode the photos and write the shards, one process databases and commits.

Ray is the extra ``ray``, and is imported only if a build by Ray is asked for.
"""

from indexer.distributed.builds import Machines, build_shards
from indexer.distributed.connection import check_address, connected
