"""A running server leaves its address and token in its index, where this user alone reads them."""

import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sketch_search.model.errors import UserError
from sketch_search.service.commands.serve import check_port
from sketch_search.service.settings import NAME, ServerAddress, Settings, announced, find_server, token_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="files have no owner there")
SERVER = ServerAddress(url="http://127.0.0.1:1", token="sesame")
SECOND = ServerAddress(url="http://127.0.0.1:2", token="another")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "CURRENT").write_text("g000001\n")
    return tmp_path / "index"


@pytest.fixture
def file(folder: Path) -> Iterator[Path]:
    with announced(folder, SERVER):
        yield folder / NAME


def test_an_address_is_there_for_as_long_as_the_server_runs(folder: Path) -> None:
    with announced(folder, SERVER):
        with announced(folder, SECOND):  # A second server of the index.
            assert find_server(folder) == SERVER
        assert find_server(folder) == SERVER
        assert (folder / NAME).stat().st_mode & 0o777 == 0o600
    assert not (folder / NAME).exists()


def test_a_second_server_on_a_taken_port_says_where_the_index_is_served(settings: Settings, file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        second = settings.model_copy(update={"port": taken.getsockname()[1], "index": file.parent})
        with pytest.raises(UserError, match=f"SBIR_PORT; this index is already served at {SERVER.url}$"):
            check_port(second)


def test_the_file_of_a_killed_server_is_ignored(folder: Path) -> None:
    with announced(folder, SERVER):
        left = (folder / NAME).read_bytes()
    (folder / NAME).write_bytes(left)
    (folder / NAME).chmod(0o644)
    assert find_server(folder) is None
    with announced(folder, SERVER):  # It is in no server's way.
        assert find_server(folder) == SERVER
        assert (folder / NAME).stat().st_mode & 0o777 == 0o600


def test_the_token_of_an_index_stays_the_same_unless_others_could_read_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(folder.parent / "state"))
    token = token_of(folder)
    assert [len(token), token_of(folder)] == [32, token]
    assert token_of(folder.parent) != token
    kept = next(file for file in (folder.parent / "state").rglob("*") if file.is_file() and token in file.read_text())
    assert kept.stat().st_mode & 0o777 == 0o600
    kept.chmod(0o644)
    other = token_of(folder)
    assert other not in ("", token)
    kept.write_text("short")
    assert token_of(folder) not in ("short", other)
    kept.unlink()
    kept.symlink_to(folder / NAME)
    assert token_of(folder) != token_of(folder)
    assert not (folder / NAME).exists()


def test_a_link_a_folder_or_a_pipe_in_its_place_is_neither_read_nor_written(folder: Path) -> None:
    mine, there = folder.parent / "mine", folder / NAME
    mine.write_text("mine")
    mine.chmod(0o600)
    puts: list[Callable[[], None]] = [lambda: os.link(mine, there), there.mkdir, lambda: os.mkfifo(there)]
    for put in puts:
        put()
        with announced(folder, SERVER):
            assert find_server(folder) is None
        assert mine.read_text() == "mine"
        if there.is_dir():
            there.rmdir()
        else:
            there.unlink()


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.write_text("no JSON"),
        lambda file: file.chmod(0o666),
        pytest.param(
            lambda file: os.chown(file, 12345, -1),
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file away"),
        ),
    ],
    ids=["damaged", "open to all", "another user"],
)
def test_an_address_that_is_not_this_users_own_is_not_believed(file: Path, change: Callable[[Path], object]) -> None:
    assert find_server(file.parent) is not None
    change(file)
    assert find_server(file.parent) is None
