"""Shards on disk for the tests of a module, and a server over others for all tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sketch_search.model import Matcher
from sketch_search.service.settings import Settings
from tests.service.sharding.shards_here import Sharded, cut, links_to, sharded
from tests.service.small_gallery import PHOTOS

HALVES = [2 * photo // PHOTOS for photo in range(PHOTOS)]


@pytest.fixture(scope="module")
def shard_folders(index_path: Path, matcher: Matcher, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return cut(index_path, matcher, tmp_path_factory.mktemp("shards"), HALVES)


@pytest.fixture(scope="package")
def running(
    settings: Settings, index_path: Path, matcher: Matcher, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sharded]:
    folders = cut(index_path, matcher, tmp_path_factory.mktemp("shards"), [0, 1, 2, 1] * 5 + [0, 1, 2])
    with sharded(settings, matcher, links_to(folders, matcher)) as server:
        yield server


@pytest.fixture
def many(running: Sharded) -> Iterator[Sharded]:
    yield running
    for link in running.links:
        link.broken, link.lies = False, {}
    # The server itself looks for them twice a second, which most tests would wait for.
    running.served.context.live.refresh()
    running.answers(3)
