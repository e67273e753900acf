"""A search on the command line asks the server of its index that runs here, if it may trust it."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from indexer import BadInvocation, Index, Request, build
from model import Matcher
from model.errors import Refusal
from service.address import NAME, announced, find_server
from service.commands.search import search
from service.commands.serve import check_port
from service.schemas import SearchQuery
from service.settings import Settings
from tests.programs import run_python
from tests.service.served import Served, served
from tests.service.small_gallery import draw_photo

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="files have no owner there")
URL = "http://127.0.0.1:1"
TOKEN = "sesame"


@pytest.fixture
def file(settings: Settings) -> Iterator[Path]:
    """The file in which a running server leaves its address."""
    assert settings.index is not None
    with announced(settings, URL, TOKEN):
        yield settings.index / NAME


@pytest.fixture
def drawn(tmp_path: Path, sketch: bytes) -> str:
    path = tmp_path / "sketch.png"
    path.write_bytes(sketch)
    return str(path)


def _found(capsys: pytest.CaptureFixture[str], *arguments: Any, **options: Any) -> tuple[dict[str, Any], str]:
    """Returns the JSON that a search prints, without its times; and its output to standard error."""
    assert search(*arguments, as_json=True, **options) == 0
    printed = capsys.readouterr()
    answer = json.loads(printed.out)
    del answer["timings_ms"]
    return answer, printed.err


@pytest.mark.parametrize("asked", [{}, {"k": 3, "fold": True}, {"view": "kinds"}, {"method": "ret", "offset": 2}])
def test_the_server_that_runs_here_answers_as_a_search_without_it(
    settings: Settings, server: Served, drawn: str, asked: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    query = SearchQuery(**asked)
    alone, silence = _found(capsys, settings, drawn, query, like=["1"])
    with announced(settings, server.url, TOKEN):
        answered, said = _found(capsys, settings, drawn, query, like=["1"])
        kept, _ = _found(capsys, settings, drawn, query, like=["1"], server=False)
    assert answered == alone == kept
    assert silence == ""
    assert said == f"answered by the server at {server.url}; --no-server searches without it\n"


def test_the_server_is_asked_about_photos_that_are_named_by_their_paths(
    settings: Settings, server: Served, index: Index, gallery: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, number = index.photo(1).paths[0], str(index.ids.max())
    alone, _ = _found(capsys, settings, None, SearchQuery(), like=[path], unlike=[number], server=False)
    with announced(settings, server.url, TOKEN):
        for liked in (path, str(gallery / path)):
            answered, said = _found(capsys, settings, None, SearchQuery(), like=[liked], unlike=[number])
            assert answered == alone
            assert said.startswith("answered by the server")
        with pytest.raises(BadInvocation, match="the index has no photo at nowhere"):
            search(settings, None, SearchQuery(), like=["nowhere.png"], as_json=True)


def test_a_server_with_a_key_is_asked_with_the_key_of_the_settings_or_not_at_all(
    settings: Settings, drawn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    protected, wrong = (settings.model_copy(update={"api_key": SecretStr(key)}) for key in ("right", "wrong"))
    with served(protected) as server, announced(protected, server.url, TOKEN):
        assert find_server(settings) is None
        assert "answered by the server" in _found(capsys, protected, drawn, SearchQuery())[1]
        # It refuses this one, which then is searched here.
        assert _found(capsys, wrong, drawn, SearchQuery())[1] == ""


def test_a_key_of_any_letters_is_sent_and_one_that_cannot_be_sent_is_no_traceback(
    settings: Settings, drawn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign, broken = (settings.model_copy(update={"api_key": SecretStr(key)}) for key in ("schlüssel€", "a\nb"))
    with served(foreign) as server, announced(foreign, server.url, TOKEN):
        assert "answered by the server" in _found(capsys, foreign, drawn, SearchQuery())[1]
        assert _found(capsys, broken, drawn, SearchQuery())[1] == ""


def test_names_in_json_do_not_reach_a_terminal_as_they_are(
    settings: Settings, matcher: Matcher, drawn: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["\x9b31mred\u202egpj.png", "Ännchen.png"]
    (tmp_path / "photos").mkdir()
    for seed, name in enumerate(names):
        draw_photo(seed).save(tmp_path / "photos" / name)
    build(tmp_path / "index", Request([tmp_path / "photos"], embedder="ret"), matcher)
    own = settings.model_copy(update={"index": tmp_path / "index"})
    assert search(own, drawn, SearchQuery(), as_json=True) == 0
    printed = capsys.readouterr().out
    assert printed.rstrip("\n").isprintable()
    assert {result["paths"][0] for result in json.loads(printed)["results"]} == {*names}


def test_an_address_is_there_for_as_long_as_the_server_runs(settings: Settings, file: Path) -> None:
    with announced(settings, "http://127.0.0.1:2", "another"):  # A second server of the index.
        found = find_server(settings)
        assert found is not None
        assert (found.url, found.token) == (URL, TOKEN)
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("file")
def test_a_second_server_on_a_taken_port_says_where_the_index_is_served(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        second = settings.model_copy(update={"port": taken.getsockname()[1]})
        with pytest.raises(Refusal, match=f"SBIR_PORT; this index is already served at {URL}$"):
            check_port(second)


def test_what_a_killed_server_has_left_is_not_believed(settings: Settings, tmp_path: Path) -> None:
    own = settings.model_copy(update={"index": tmp_path})
    (tmp_path / "CURRENT").write_text("g000001\n")
    with announced(own, URL, TOKEN):
        left = (tmp_path / NAME).read_bytes()
        assert find_server(own) is not None
    assert not (tmp_path / NAME).exists()
    (tmp_path / NAME).write_bytes(left)
    (tmp_path / NAME).chmod(0o644)
    assert find_server(own) is None
    with announced(own, URL, TOKEN):  # It is in no server's way.
        assert find_server(own) is not None
        assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600


def test_what_somebody_else_puts_in_its_place_is_neither_believed_nor_written_to(
    settings: Settings, tmp_path: Path
) -> None:
    own = settings.model_copy(update={"index": tmp_path / "index"})
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "CURRENT").write_text("g000001\n")
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "mine").chmod(0o600)
    place = tmp_path / "index" / NAME
    puts: list[Callable[[], None]] = [lambda: os.link(tmp_path / "mine", place), place.mkdir, lambda: os.mkfifo(place)]
    for put in puts:
        put()
        with announced(own, URL, TOKEN):
            assert find_server(own) is None
        assert (tmp_path / "mine").read_text() == "mine"
        if place.is_dir():
            place.rmdir()
        else:
            place.unlink()


def _changed(**values: Any) -> Callable[[Path], object]:
    return lambda file: file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize(
    "change",
    [
        _changed(url="http://192.0.2.1:8000"),
        _changed(url="http://photos.example:8000"),
        _changed(machine=f"not {socket.gethostname()}"),
        _changed(index="/elsewhere"),
        lambda file: file.write_text("no JSON"),
        lambda file: file.chmod(0o666),
        pytest.param(
            lambda file: os.chown(file, 12345, -1),
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file away"),
        ),
    ],
    ids=["another address", "a name", "another machine", "another index", "damaged", "open to all", "another user"],
)
def test_an_address_that_is_not_this_users_own_is_not_believed(
    settings: Settings, file: Path, change: Callable[[Path], object]
) -> None:
    assert find_server(settings) is not None
    change(file)
    assert find_server(settings) is None


def test_a_server_that_would_answer_otherwise_is_not_asked(settings: Settings, file: Path) -> None:
    assert find_server(settings.model_copy(update={"port": 1, "queue": 3})) is not None
    assert find_server(settings.model_copy(update={"default_k": 3})) is None
    assert find_server(settings.model_copy(update={"weights": None})) is None


@pytest.mark.parametrize("asks", [True, False])
def test_a_search_loads_no_network_where_a_server_answers_and_no_server_where_it_answers_itself(
    settings: Settings, server: Served, drawn: str, asks: bool
) -> None:
    code = (
        "import sys; from service.commands import main; code = main(sys.argv[1:]); "
        "print(' '.join(name for name in sys.modules if '.' not in name), file=sys.stderr); sys.exit(code)"
    )
    place = ["--index", str(settings.index), "--weights", str(settings.weights)]
    limits = {"SBIR_MAX_K": str(settings.max_k), "SBIR_MAX_PIXELS": str(settings.max_pixels)}
    command = ["search", drawn, *place, *([] if asks else ["--no-server"])]
    with announced(settings, server.url, TOKEN):
        done = run_python("-c", code, *command, environment=os.environ | limits)
    assert done.returncode == 0, done.stderr
    assert ("answered by the server" in done.stderr) == asks
    loaded = set(done.stderr.splitlines()[-1].split())
    unneeded = {"torch", "numpy", "PIL"} if asks else {"fastapi", "uvicorn", "httpx", "timm", "open_clip"}
    assert not loaded & (unneeded | {"torchvision", "scipy", "sklearn"})
