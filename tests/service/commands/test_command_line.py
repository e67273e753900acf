"""What may be written on the command line, and how it is told apart."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import indexer.commands
from indexer import build, read_summary
from model import Matcher
from model.terminal import installed_version
from service.client import Client
from service.commands import main
from service.commands.command_line import (
    COMMANDS,
    INDEX_COMMANDS,
    PROGRAMS,
    parse,
    with_command,
    with_index_command,
)
from tests.pictures import encoded
from tests.programs import run_python
from tests.service.commands.stopped import SERVICE, run_until
from tests.service.small_gallery import PHOTOS, draw_photo, draw_sketch

SCREEN_LINES = 40


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ([], "serve"),
        (["--port", "1"], "serve --port 1"),
        (["--index=search"], "serve --index=search"),
        (["--index", "search"], "serve --index search"),
        (["Pictures", "--open"], "serve Pictures --open"),
        (["--open", "Pictures"], "serve --open Pictures"),
        (["./search"], "serve ./search"),
        (["Pictures", "--help"], "serve Pictures --help"),
        (["search", "cat.png"], "search cat.png"),
        (["--index", "here", "search", "cat.png"], "--index here search cat.png"),
        (["--help"], "--help"),
        (["--version"], "--version"),
    ],
)
def test_what_names_no_command_is_served(given: list[str], meant: str) -> None:
    assert with_command(given) == meant.split()


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ([], "build"),
        (["Pictures"], "build Pictures"),
        (["--watch"], "build --watch"),
        (["build", "Pictures"], "build Pictures"),
        (["add", "Pictures"], "add Pictures"),
        (["--help"], "--help"),
    ],
)
def test_an_index_of_no_command_is_built(given: list[str], meant: str) -> None:
    assert with_index_command(given) == meant.split()


def test_every_command_of_the_indexer_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        indexer.commands.main(["no such command"])
    choices = capsys.readouterr().err.partition("choose from ")[2].strip().rstrip(")")
    assert {choice.strip(" '") for choice in choices.split(",")} == set(INDEX_COMMANDS)


def test_options_before_a_command_hold_unless_they_are_repeated_behind_it() -> None:
    options = parse(["--index", "a", "--weights", "b", "search", "cat.png", "--weights", "c"])
    assert (options.index, options.weights, options.device) == (Path("a"), Path("c"), None)


@pytest.mark.parametrize("command", ["", *COMMANDS, *PROGRAMS])
def test_help_fits_a_screen_and_shows_examples(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(f"usage: sketch-search {command}".rstrip())
    assert len(printed) <= SCREEN_LINES
    assert max(map(len, printed)) <= 80
    assert "examples:" in printed


# Runs a command line, and fails where it loads what takes seconds.
QUICKLY = (
    "import sys\n"
    "from service.commands import main\n"
    "try:\n    sys.exit(main(sys.argv[1:]))\n"
    "finally:\n    assert not {'torch', 'faiss', 'fastapi', 'model.matcher'} & set(sys.modules)"
)


def test_a_sketch_that_is_not_there_is_told_before_anything_slow_is_loaded(tmp_path: Path) -> None:
    done = run_python("-c", QUICKLY, "search", str(tmp_path / "cat.png"))
    assert done.returncode == 2
    assert done.stderr.startswith(f"sketch-search: {tmp_path / 'cat.png'}: No such file or directory")


def test_help_and_version_need_no_networks() -> None:
    for asked in (
        ["--help"],
        ["search", "--help"],
        ["--version"],
        ["index", "--help"],
        ["index", "build", "--help"],
        ["index", "--version"],
        ["model", "--help"],
        ["model", "train", "--help"],
        ["model", "evaluate", "--help"],
        ["model", "--version"],
    ):
        done = run_python("-c", QUICKLY, *asked)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("program", ["", *PROGRAMS])
def test_every_program_says_its_version(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*program.split(), "--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.split()[-1] == installed_version()


def test_the_programs_of_indexer_and_model_are_commands(
    index_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["index", "info", "--index", str(index_path)]) == 0
    assert str(index_path) in capsys.readouterr().out
    assert main(["model", "info", str(weights)]) == 0
    assert str(weights) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--index", "here", "index", "info"], "write its options behind its name"),
        (["search"], "required: sketch"),
        (["index", "build", "--no-such-option"], "--no-such-option"),
    ],
)
def test_a_slip_is_told_and_the_exit_code_is_2(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("host", ["", "x" * 300])
def test_a_host_that_cannot_be_one_is_a_sentence(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--port", "0", "--host", host]) == 2
    told = capsys.readouterr().err
    assert "is not a host; write a name or an address without a port" in told
    assert len(told) < 300


def test_what_is_neither_a_folder_nor_a_command_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serch", "cat.png"]) == 2
    assert "serch is neither a folder nor a command" in capsys.readouterr().err


@pytest.fixture
def one_photo(tmp_path: Path, matcher: Matcher) -> tuple[Path, Path]:
    """A folder with one photo, and its index."""
    photos, index = tmp_path / "photos", tmp_path / "index"
    photos.mkdir()
    (photos / "one.png").write_bytes(encoded(draw_photo(1)))
    build([photos], index, matcher, embedder="ret")
    return photos, index


def test_an_index_of_other_folders_is_not_replaced_by_serving(
    one_photo: tuple[Path, Path], gallery: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, index = one_photo
    assert main([str(gallery), "--index", str(index), "--weights", str(weights)]) == 2
    refused = capsys.readouterr().err
    assert f"holds other folders: {photos}" in refused
    assert [root.path for root in read_summary(index).manifest.roots] == [str(photos)]


@pytest.mark.skipif(os.name != "posix", reason="stops the server as Ctrl-C does on POSIX systems")
def test_a_known_folder_that_is_not_mounted_is_served_as_it_was_last_known(
    one_photo: tuple[Path, Path], tmp_path: Path, weights: Path
) -> None:
    photos, index = one_photo
    photos.rename(tmp_path / "elsewhere")
    found: list[int] = []

    def searched(line: str) -> bool:
        if not line.startswith("sketch-search at http://"):
            return False
        with Client(line.split()[-1]) as client:
            found.append(len(client.search(draw_sketch(), k=2).results))
        return True

    options = ["--index", str(index), "--weights", str(weights), "--port", "0"]
    code, printed = run_until([*SERVICE, str(photos), *options], searched)
    assert (code, found) == (0, [1])
    told = f"sketch-search: {photos}: the folder cannot be read: No such file or directory; what was known of it stays."
    assert told in printed


@pytest.mark.skipif(os.name != "posix", reason="stops the server as Ctrl-C does on POSIX systems")
def test_a_folder_is_indexed_served_and_opened(tmp_path: Path, gallery: Path, weights: Path) -> None:
    found: list[int] = []
    opened: list[str] = []

    def searched(line: str) -> bool:
        # The browser is a program that prints what it was to open.
        if not line.startswith("opened http://"):
            return False
        opened.append(line.split()[1])
        with Client(opened[0]) as client:
            found.append(len(client.search(draw_sketch(), k=PHOTOS).results))
        return True

    options = ["--index", str(tmp_path / "index"), "--weights", str(weights), "--port", "0", "--open"]
    code, printed = run_until([*SERVICE, str(gallery), *options], searched, environment={"BROWSER": "echo opened %s"})
    assert code == 0, printed
    assert f"{gallery}: {PHOTOS} photos\n{PHOTOS} of them encoded now" in printed
    assert f"sketch-search at {opened[0]}\n" in printed
    assert found == [PHOTOS]


@pytest.mark.skipif(os.name != "posix", reason="stops the server as Ctrl-C does on POSIX systems")
def test_without_an_index_it_serves_and_says_how_to_make_one(tmp_path: Path, weights: Path) -> None:
    options = ["--index", str(tmp_path / "none"), "--weights", str(weights), "--port", "0"]
    code, printed = run_until([*SERVICE, *options], lambda line: "startup complete" in line)
    assert code == 0, printed
    assert "There is no index yet: the page asks for a folder of photos, or `sketch-search FOLDER` makes one" in printed
