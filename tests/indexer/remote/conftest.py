"""Each test has a home folder of its own, with the credentials of the servers that it starts, and nothing else."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from sketch_search.indexer.store import remote
from tests.indexer.remote.servers import Bucket, Served, Server, close_connections, s3, sftp, webdav


@pytest.fixture(scope="package", autouse=True)
def earlier_garbage() -> None:
    """Collects once what other tests left, since each test here freezes what it finds."""
    gc.collect()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    place = tmp_path / "home"
    place.mkdir()
    monkeypatch.setenv("HOME", str(place))
    for name in ("NETRC", "AWS_PROFILE", "AWS_ENDPOINT_URL", "SSH_AUTH_SOCK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    # Tries are the library's own, and may be told by the environment: a test does not wait for all of them.
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(remote, "_PAUSE", 0.0)
    monkeypatch.setattr(remote, "_open", {})
    # The collections at its end look through what this test has made, not through all libraries.
    gc.freeze()
    yield place
    close_connections()


@pytest.fixture
def bucket(home: Path) -> Iterator[Bucket]:
    with s3(home) as made:
        yield made


@pytest.fixture
def davs(home: Path, tmp_path: Path) -> Iterator[Served]:
    with webdav(tmp_path / "served", home) as served:
        yield served


@pytest.fixture
def nas(home: Path, tmp_path: Path) -> Iterator[Served]:
    with sftp(tmp_path / "served", home) as served:
        yield served


@pytest.fixture(params=["bucket", "nas", "davs"])
def server(request: pytest.FixtureRequest) -> Server:
    return request.getfixturevalue(request.param)
