"""Shards on disk, for the tests of a module."""

from pathlib import Path

import pytest

from model import Matcher
from tests.service.sharding.shards_here import cut
from tests.service.small_gallery import PHOTOS

HALVES = [2 * photo // PHOTOS for photo in range(PHOTOS)]


@pytest.fixture(scope="module")
def shard_folders(index_path: Path, matcher: Matcher, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two shards, the photos with the lower ids in the first."""
    return cut(index_path, matcher, tmp_path_factory.mktemp("shards"), HALVES)
