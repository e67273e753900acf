from __future__ import annotations

from pathlib import Path

import pytest

import model
from indexer import Request, build
from tests.indexer.distributed.builds import BuildShards
from tests.indexer.distributed.same import check_same
from tests.indexer.remote.servers import webdav

# The libraries leave sockets to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_workers_read_photos_by_url_and_write_what_one_machine_writes(
    tmp_path: Path, photos: Path, sharded: BuildShards, matcher: model.Matcher
) -> None:
    (tmp_path / "served").mkdir()
    with webdav(tmp_path / "served", home=None) as server:
        server.fill(photos)
        build(tmp_path / "plain", Request([server.url], embedder="ret"), matcher)
        asked = server.requests
        report = sharded(server.url, tmp_path / "shards", 2)
        assert (report.photos, report.unlisted) == (24, ())
        assert server.requests - asked >= 24
        check_same(tmp_path / "shards", tmp_path / "plain")
