"""Shards on disk, for the tests of a module."""

from __future__ import annotations

from pathlib import Path

import pytest

from model import Matcher
from tests.service.sharding.cut_indexes import cut


@pytest.fixture(scope="module")
def shard_folders(index_path: Path, matcher: Matcher, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return cut(index_path, matcher, tmp_path_factory.mktemp("shards"))
