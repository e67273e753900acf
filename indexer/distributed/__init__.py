"""Builds on many machines: Ray's workers encode the photos and write the shards, one process plans and commits."""

from sketch_search.indexer.distributed.backend import Machines, build_shards
from sketch_search.indexer.distributed.workers import check_address, connected
