import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from sketch_search.model.errors import UserError
from sketch_search.model.limits import MAX_VARIANTS
from sketch_search.service.commands.serve import check_port
from sketch_search.service.settings import (
    MAX_THREADS,
    NAME,
    ServerAddress,
    Settings,
    announced,
    find_server,
    redirecting,
    token_of,
)
from tests.programs import PATIENCE, started_python


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SKETCH_SEARCH_")]:
        monkeypatch.delenv(name)


def test_without_an_environment_the_service_is_local_and_closed() -> None:
    settings = Settings()
    assert (settings.host, settings.cors_origins, settings.api_key) == ("127.0.0.1", (), None)


PLACES = (
    ("/a", "/b c"),
    ("s3://a", "22", "/c", "sftp://me@nas:22/d", "webdavs://h/e f"),
    ("sftp://me:word@nas/d", "/e.zip"),
)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        *(("gallery", os.pathsep.join(places), places) for places in PLACES),
        ("gallery", '["/a:b", "/c"]', ("/a:b", "/c")),
        ("gallery", "", ()),
        ("api_key", "", None),
        *((name, "auto", None) for name in ("dtype", "threads")),
        ("cors_origins", "https://a.example, https://b.example", ("https://a.example", "https://b.example")),
        ("allowed_hosts", "photos.example, *.local, [::1]", ("photos.example", "*.local", "[::1]")),
        ("allowed_hosts", "[::1]", ("[::1]",)),
        ("allowed_hosts", "[::1], [fe80::1]\r", ("[::1]", "[fe80::1]")),
        ("gallery", os.pathsep.join(("[2019] beach", "/b")), ("[2019] beach", "/b")),
    ],
)
def test_lists_are_separated_or_json(name: str, text: str, value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"SKETCH_SEARCH_{name.upper()}", text)
    assert getattr(Settings(), name) == value


@pytest.mark.parametrize(
    ("host", "known"),
    [
        *((host, host) for host in ("127.0.0.1", "127.0.0.2", "localhost")),
        *(("::1", "[::1]"), ("0.0.0.0", None), ("::", None), ("192.168.0.7", None)),
    ],
)
def test_on_a_loopback_address_only_its_own_names_are_known(host: str, known: str | None) -> None:
    assert Settings(host=host).known_hosts == (("localhost", "127.0.0.1", "[::1]", known) if known else ("*",))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "no"),
        ("PORT", "70000"),
        ("DEVICE", "abacus"),
        ("QUEUE", "-1"),
        ("GALLERY", '["a'),
        ("GALLERY", '["a", 1]'),
    ]
    + [("VARIANTS", "0"), ("VARIANTS", str(MAX_VARIANTS + 1)), ("THREADS", "0")]
    + [("THREADS", str(MAX_THREADS + 1)), ("THREADS", "9" * 5000), ("MAX_PIXELS", "9" * 19)]
    + [("HOST", host) for host in (" ", "a b", "http://a.example", "127.0.0.1:8000", "[::1]", "a..b", "x" * 64, "-a")]
    + [("CORS_ORIGINS", "https://a.example,null")]
    + [
        ("LINK", link)
        for link in ("javascript:alert(1)", "photos.example/{name}", "https://photos.example/{folder}", "https://a/}")
    ]
    + [("ALLOWED_HOSTS", host) for host in ("a.example:80", "*a", "::1", "https://a.example")],
)
def test_a_wrong_value_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"SKETCH_SEARCH_{name}", value)
    with pytest.raises(ValidationError) as refused:
        Settings()
    assert refused.value.errors()[0]["loc"] == (name.lower(),)


@pytest.mark.parametrize("name", ["API_KEY", "API_KEY_FILE", "INDEX"])
def test_quotes_of_a_file_of_variables_are_named_and_its_line_ends_left_out(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text("'sesame'\n")
    monkeypatch.setenv(f"SKETCH_SEARCH_{name}", str(tmp_path / "key") if name == "API_KEY_FILE" else '"sesame"')
    with pytest.raises(ValidationError, match="has quotes around its value"):
        Settings()
    (tmp_path / "key").write_text("sesame\r\n")
    if name != "API_KEY_FILE":
        monkeypatch.setenv(f"SKETCH_SEARCH_{name}", "sesame\r")
    settings = Settings()
    key = settings.api_key
    assert (key.get_secret_value() if key else str(settings.index)) == "sesame"


def test_the_api_key_may_be_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    monkeypatch.setenv("SKETCH_SEARCH_API_KEY_FILE", str(file))
    for content, said in ((None, "cannot be read from"), (b" \n", "there is no API key in"), (b"\xff", "cannot be")):
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(ValidationError, match=said):
            Settings()
    file.write_text("open sesame\n")
    key = Settings().api_key
    assert key is not None
    assert key.get_secret_value() == "open sesame"
    monkeypatch.setenv("SKETCH_SEARCH_API_KEY", "another")
    with pytest.raises(ValidationError, match="both set"):
        Settings()


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
        with pytest.raises(UserError, match=f"SKETCH_SEARCH_PORT; this index is already served at {SERVER.url}$"):
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


def test_the_page_with_the_token_of_a_killed_server_goes_when_the_next_one_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = (
        f"import sys, tempfile; tempfile.tempdir = {str(tmp_path)!r}; from sketch_search.service import settings\n"
        "with settings.redirecting('http://127.0.0.1/?token=secret') as name: print(name, flush=True); sys.stdin.read()"
    )
    (mine := tmp_path / "sketch-search-of-a-group.html").write_text("mine")
    mine.chmod(0o666)
    (link := tmp_path / "sketch-search-link.html").symlink_to(mine)
    with started_python("-c", code) as killed:
        assert killed.stdout is not None
        left = Path(killed.stdout.readline().strip())
        with redirecting("http://127.0.0.1/") as page:
            assert "secret" in left.read_text()
        assert not Path(page).exists()
        killed.kill()
        killed.wait(PATIENCE)
    assert left.exists()
    with redirecting("http://127.0.0.1/") as page, redirecting("http://127.0.0.1/"):
        assert not left.exists()
        assert Path(page).stat().st_mode & 0o777 == 0o600
    assert {*tmp_path.iterdir()} == {mine, link}


def test_a_token_stays_the_same_unless_others_could_read_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
