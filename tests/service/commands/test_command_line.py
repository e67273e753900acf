import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sketch_search.indexer import BuildRequest, build, samples
from sketch_search.model import Matcher, load
from sketch_search.model.terminal import installed_version
from sketch_search.service.commands import application, main
from sketch_search.service.commands.serve import RESULTS
from sketch_search.service.schemas.query import SearchQuery
from sketch_search.service.settings import Settings
from tests.pictures import encoded
from tests.programs import commands_of, parse, run_python, run_until
from tests.service.small_gallery import draw_sketch, save_copy

SCREEN_LINES = 40


@pytest.mark.parametrize(
    ("given", "command", "params"),
    [
        ("", "serve", {"folders": (), "port": None}),
        ("--port 1", "serve", {"port": 1}),
        ("--index=search", "serve", {"index": Path("search")}),
        ("--index search", "serve", {"index": Path("search"), "folders": ()}),
        ("Pictures --open", "serve", {"folders": (Path("Pictures"),), "browser": True}),
        ("--open Pictures", "serve", {"folders": (Path("Pictures"),), "browser": True}),
        ("./search s3://bucket", "serve", {"folders": (Path("search"), "s3://bucket")}),
        ("search cat.png", "search", {"sketches": ("cat.png",), "kind": None}),
        ("--index here search cat.png", "search", {"sketches": ("cat.png",), "index": Path("here")}),
        ("--index a --weights b search x --weights c", "search", {"index": Path("a"), "weights": Path("c")}),
        ("explain --photo a.jpg b.jpg -o why", "explain", {"kind": "photo", "output": Path("why")}),
        ("explain a.png --thing b.png -o why", "explain", {"pictures": ("a.png",), "thing": (Path("b.png"),)}),
        ("index", "build", {"folders": ()}),
        ("index Pictures", "build", {"folders": (Path("Pictures"),)}),
        ("index --watch", "build", {"watch": True}),
        ("index build Pictures", "build", {"folders": (Path("Pictures"),)}),
        ("index add Pictures", "add", {"added": (Path("Pictures"),)}),
        ("--index here index info", "info", {"index": Path("here")}),
        ("--weights w --device cuda index Pictures", "build", {"weights": Path("w"), "device": "cuda"}),
    ],
)
def test_a_command_line_means_one_command(given: str, command: str, params: dict[str, Any]) -> None:
    context = parse(application, given.split())
    assert context.command.name == command
    assert {name: context.params[name] for name in params} == params


@pytest.mark.parametrize("command", ["", *commands_of(application), "index add", "index remove"])
def test_help_fits_a_screen(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*command.split(), "--help"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(f"Usage: sketch-search {command}".rstrip())
    assert len(printed) <= SCREEN_LINES
    assert max(map(len, printed)) <= 80
    assert "  examples:" in printed or command in ("index add", "index remove")


def test_every_part_of_a_query_is_an_option() -> None:
    context = parse(application, ["search", "cat.png"])
    assert context.params.keys() == {*SearchQuery.model_fields, "sketches", "as_json", "index", "weights", "device"}


@pytest.mark.parametrize("program", ["", "index", "model"])
def test_every_program_says_its_version(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*program.split(), "--version"]) == 0
    assert capsys.readouterr().out.split()[-1] == installed_version()


def test_the_program_ends_with_the_code_of_its_command_once_its_end_was_prepared() -> None:
    code = (
        "import atexit; atexit.register(print, 'over'); from sketch_search.service.commands import program; program()"
    )
    for arguments, ended in ((["--version"], 0), (["search"], 2)):
        done = run_python("-c", code, *arguments)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (ended, "over"), done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--index", "here", "model", "info"], "write the options for model after its name"),
        (["search"], "Missing argument 'SKETCH', or --like PHOTO, or --text WORD, or a filter. `sketch-search search"),
        (["explain", "-o", "why"], "Missing argument 'SKETCH', or --like PHOTO"),
        (["explain", "--photo", "--like", "7", "-o", "why"], "but --like needs none"),
        (
            ["index", "build", "--no-such-option"],
            "No such option '--no-such-option'. `sketch-search index build --help`",
        ),
        # An abbreviation of one option may tomorrow be that of two.
        (["search", "cat.png", "--js"], "No such option '--js'"),
        (["--port", "x\x1b[2J"], "Invalid value for '--port': 'x\\x1b[2J' is not a valid integer"),
        (["--index", ""], "a path is empty"),
        (["search", "."], ". is a folder; name a file."),
        (["--device", "x"], "is not one of"),
        (["serve", "--port", "0", "--host", ""], "is not a host; write a name or an address without a port"),
        (["serch", "cat.png"], "serch is neither a folder nor a command"),
        (["search", "nowhere.png"], "nowhere.png"),
        (["search", "text.png"], "image type"),
        (["search", "/dev/zero"], "image type"),
        (["search", "damaged.png"], "damaged.png: the PNG file is damaged"),
        (["search", "white.png"], "blank"),
        (["search", "sketch.png", "--like", "nowhere.png"], "no photo at nowhere.png"),
        (["search", "sketch.png", "--unlike", "1000"], "no photo has the id 1000"),
        (["search", "sketch.png", "--index", "/no/such/index"], "index"),
        # The last of an option given twice holds, also where the first stands before the command.
        (["--weights", ".", "search", "sketch.png", "--weights", "/no/such/file"], "no checkpoint at /no/such/file"),
        (["--port", "70000"], "port must be at most 65535"),
        (["serve", "--ray", "auto"], "name their folders with --shards"),
        (["serve", "--shards", "x"], "name it with --ray ADDRESS"),
        (["serve", "--ray", "auto", "--shards", "x", "z", "y/../x"], "one shard is given twice"),
        (["explain", "nothing.png", "-o", "white.png"], "white.png is a file; name a folder for the files."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_slip_is_reported_and_the_exit_code_is_2(
    arguments: list[str],
    sentence: str,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sketch, white = encoded(draw_sketch()), encoded(Image.new("RGB", (20, 20), "white"))
    for name, content in {"text": b"text", "white": white, "sketch": sketch, "damaged": sketch[:200]}.items():
        (tmp_path / f"{name}.png").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKETCH_SEARCH_INDEX", str(settings.index))
    monkeypatch.setenv("SKETCH_SEARCH_WEIGHTS", str(settings.weights))
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("error: ")
    assert sentence in err


def test_who_searches_with_a_picture_is_told_of_the_options_that_it_needs(
    default: Matcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    both = Image.new("RGB", (900, 300), "white")
    for at, thing in enumerate(("cat", "umbrella")):
        both.paste(samples.draw_sketch(thing).convert("RGB").resize((300, 300)), (600 * at, 0))
    for folder in ("photos", "scans"):
        (tmp_path / folder).mkdir()
        draw_sketch().save(tmp_path / folder / "1.jpg")
    both.save(tmp_path / "both.png")
    build(tmp_path / "index", BuildRequest([tmp_path / "photos"], clusters=1), default)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKETCH_SEARCH_INDEX", "index")
    told = {"photos/1.jpg": "--photo finds what looks", "both.png": "2 things; --things one takes it as one"}
    for command in [*told, "scans/1.jpg", "photos/1.jpg --photo", "both.png --things one"]:
        assert main(["search", *command.split()]) == 0
        said = capsys.readouterr().err
        assert {name for name, remark in told.items() if remark in said} == {command} & told.keys()


on_posix = pytest.mark.skipif(os.name != "posix", reason="stops the server as Ctrl-C does on POSIX systems")


@on_posix
def test_photos_are_indexed_searched_and_served_until_ctrl_c(tmp_path: Path) -> None:
    photos = RESULTS + 1
    for seed in range(photos):
        save_copy(tmp_path / "few" / f"{seed}.png", seed, 0)
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = str(held.getsockname()[1])
    place = ["--photos", str(tmp_path / "few"), "--port", port]
    command = [sys.executable, "-m", "service", "demo", str(tmp_path / "demo"), *place]
    code, printed = run_until(command, lambda line: "Ctrl-C ends" in line or "failed" in line)
    assert code == 0, printed
    assert "Traceback" not in printed
    assert f"{tmp_path / 'few'}: {photos} photos\n" in printed
    assert f"encoded now: {photos}, by " in printed
    assert f"Draw your own at http://127.0.0.1:{port}" in printed
    doubt = "not sure that any photo looks like the drawing; these are the closest"
    assert (doubt in printed) == bool(load().calibration.shown), "only fitted weights tell that"
    rows = [line.split() for line in printed.splitlines() if line.strip()[:1].isdigit() and ".png" in line]
    ranks = [row[0] for row in rows if len(row) == 2]
    assert ranks == [str(rank) for rank in range(1, RESULTS + 1)]


NETWORKS = {"torch", "onnxruntime", "faiss", "sketch_search.model.matcher", "sketch_search.model.torch"}
OF_SERVERS = {"sketch_search.service.schemas.explain", "fastapi"}
# Runs command lines one after the other, whatever becomes of each.
COMMANDS = """
from sketch_search.service.commands import main
for command in {}:
    main(command.split())
"""
_HELPED = ("", "search", "index", "index build", "model", "model info")
ANSWERED_AT_ONCE = [*(f"{command} --help" for command in _HELPED), "--version", "index --version", "model --version"]
ANSWERED_AT_ONCE += ["search nothing.png"]


@pytest.mark.parametrize(
    ("code", "unneeded"),
    [
        (
            "import sketch_search.service.http.app",
            {"sketch_search.training", "sketch_search.model.torch", "timm", "torch", "sklearn"},
        ),
        ("import sketch_search.indexer.building.builder", {"s3fs", "sshfs", "httpx", "asyncssh", "botocore"}),
        ("import sketch_search; sketch_search.Remote", NETWORKS | {"timm", "scipy", "fastapi"}),
        ("import sketch_search.service.engine", {"faiss", "sketch_search.service.explain", *OF_SERVERS}),
        (COMMANDS.format(ANSWERED_AT_ONCE), NETWORKS | {"fastapi"}),
    ],
    ids=["the server", "a build without a URL", "a program that asks a server", "a search", "help and a slip"],
)
def test_unneeded_modules_are_not_loaded(code: str, unneeded: set[str]) -> None:
    done = run_python("-c", f"{code}\nimport sys\nprint(sorted({unneeded} & set(sys.modules)))")
    assert (done.stdout.splitlines()[-1], done.returncode) == ("[]", 0), done.stderr


@pytest.mark.parametrize(
    ("program", "variable", "value"),
    [
        ("import sketch_search.gallery", "OPENBLAS_THREAD_TIMEOUT", "4"),
        (COMMANDS.format(("serve",)), "OPENBLAS_NUM_THREADS", "1"),
        (COMMANDS.format(("index build .",)), "OPENBLAS_NUM_THREADS", "1"),
    ],
    ids=["a program", "the server", "a build"],
)
def test_threads_of_numpy_do_not_spin_beside_those_of_the_networks(program: str, variable: str, value: str) -> None:
    code = f"""
import os, sys
class Watched:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            print(os.environ.get("{variable}"))
            sys.exit()
sys.meta_path.insert(0, Watched())
{program}
"""
    # What these tests have imported may have set it for their own process.
    inherited = {name: held for name, held in os.environ.items() if name != variable}
    assert run_python("-c", code, environment=inherited).stdout == f"{value}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_the_script_that_completes_commands_options_and_paths(shell: str) -> None:
    def printed(what: str, line: str = "") -> list[str]:
        words = {"COMP_WORDS": line, "COMP_CWORD": line.split(" ")[-1] if shell == "fish" else str(line.count(" "))}
        environment = {**os.environ, **words, "_SKETCH_SEARCH_COMPLETE": f"{shell}_{what}"}
        done = run_python("-m", "sketch_search", environment=environment)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.replace("\t", ",").splitlines()

    assert "_sketch_search_completion" in "".join(printed("source"))
    for line, completed in (
        ("sketch-search sea", "search"),
        ("sketch-search index ad", "add"),
        ("sketch-search search --fol", "--folder"),
        # Options of the command without a name.
        ("sketch-search ~/Pictures --op", "--open"),
        ("sketch-search search ca", "ca"),
        ("sketch-search ./ca", "./ca"),
        ("sketch-search index build --index ca", "ca"),
    ):
        kind = "plain" if completed.startswith("-") or (completed.isalpha() and completed != "ca") else "file"
        assert [one for one in printed("complete", line) if completed in one and (kind in one or shell == "zsh")]
