"""Defines the command line. Nothing slow is imported before `--help` and `--version` are answered."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence

from model.terminal import Parser, Subparsers, VersionAction, a_folder, a_path, importing, run_program
from service import PROGRAM

# The first command is the one that runs where none is named.
COMMANDS = ("serve", "search", "explain", "demo", "openapi")
PROGRAMS = ("index", "model")
# `sketch-search index` followed by anything else means `sketch-search index build`.
INDEX_COMMANDS = ("build", "add", "remove", "info", "verify", "samples")
ANSWERED_AT_ONCE = ("-h", "--help", "--version")
# The options that may stand before a command and take the next argument as their value.
_VALUED = ("--index", "--weights", "--device", "--host", "--port")

_WEIGHTS = "checkpoint, a safetensors file (the embedded one)"
# Examples stay in lines of their own, and most options fit one line with what they do.
_FORMAT = functools.partial(argparse.RawDescriptionHelpFormatter, max_help_position=27)
_DESCRIPTION = "Draw something, find the photos of it. FOLDERs are indexed, then served."
_EXAMPLES = """\
examples:
  sketch-search ~/Pictures --open      index the folder, serve it, open the page
  sketch-search --port 8080            serve what was indexed before
  sketch-search search cat.png --k 5   search without the page
  sketch-search index add ~/More       have one more folder in the index

`sketch-search COMMAND --help` says more. A folder named like a command is
written with its path: ./search. Every setting is an environment variable, too:
SBIR_HOST, SBIR_PORT, SBIR_INDEX and so on.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0, or what ``run_program`` makes of an error."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Around the imports, too: they take seconds, in which somebody may press Ctrl-C.
    return run_program(lambda: _run(given), prefix=PROGRAM)


def _run(given: list[str]) -> int:
    if given[:1] == ["index"]:
        from indexer.commands import main as index

        return index(with_index_command(given[1:]), prog=f"{PROGRAM} index")
    if given[:1] == ["model"]:
        from model.commands import main as model

        return model(given[1:], prog=f"{PROGRAM} model")
    options = parse(given)
    with importing():
        # Imported late: the libraries of the networks take seconds to load.
        from service.commands.dispatch import run

    return run(options)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Reads the options of one command, whose name is ``command``. If they are wrong, the program ends with code 2."""
    parser = build_parser()
    if (word := _first_word(arguments)) in PROGRAMS:
        parser.error(f"{word} is a program of its own: write its options behind its name")
    options = parser.parse_args(with_command(arguments))
    if options.command == "search" and options.sketch is None and not options.like and options.text is None:
        parser.error("the following arguments are required: sketch, or --like PHOTO, or --text WORD")
    if options.command == "explain":
        _place_explained(parser, options)
    return options


def _place_explained(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Takes all files as photos to explain where they are compared with a photo of the index and not with a sketch."""
    if options.like is not None:
        if options.kind == "photo":
            parser.error("--photo says what the image is, and with --like there is none: leave one of them out")
        options.photos = [options.sketch, *options.photos] if options.sketch is not None else options.photos
        options.sketch = None
    elif options.sketch is None:
        parser.error("the following arguments are required: sketch, or --like PHOTO")


def with_command(arguments: Sequence[str]) -> list[str]:
    """``arguments`` with "serve" in front where they name no command."""
    word = _first_word(arguments)
    if word in (*COMMANDS, *PROGRAMS) or (word is None and any(asked in arguments for asked in ANSWERED_AT_ONCE)):
        return list(arguments)
    return [COMMANDS[0], *arguments]


def with_index_command(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments of the indexer, with "build" in front where they name none of its commands."""
    if arguments and arguments[0] in (*INDEX_COMMANDS, *ANSWERED_AT_ONCE):
        return list(arguments)
    return ["build", *arguments]


def _first_word(arguments: Sequence[str]) -> str | None:
    """The first argument that is neither an option nor the value of one; None if there is none."""
    place = 0
    while place < len(arguments):
        if not arguments[place].startswith("-"):
            return arguments[place]
        place += 2 if arguments[place] in _VALUED else 1
    return None


def build_parser() -> argparse.ArgumentParser:
    """Returns the command line, but for those of the indexer and the model, which are programs of their own."""
    parser = Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [FOLDER ...] [--open] [OPTION ...]\n       {PROGRAM} COMMAND ...",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=_FORMAT,
    )
    # Accepted before a command, too. Behind it they have no default, which would overwrite what stands before it.
    _add_settings(parser, default=None)
    parser.add_argument("--version", action=VersionAction)
    commands = parser.add_subparsers(dest="command", prog=PROGRAM, title="commands", metavar="COMMAND", required=True)
    _add_serve(commands)
    _add_search(commands)
    _add_explain(commands)
    commands.add_parser("index", help="build an index, look after it: python -m indexer", add_help=False)
    commands.add_parser("model", help="train, measure, convert networks: python -m model", add_help=False)
    _add_demo(commands)
    _add_openapi(commands)
    return parser


def _add_serve(commands: Subparsers) -> None:
    serve = _add_command(
        commands,
        "serve",
        "index FOLDERs, if any, and serve them (the default)",
        "sketch-search ~/Pictures --open\nsketch-search serve --port 8080",
    )
    serve.add_argument("folders", type=a_folder, nargs="*", metavar="FOLDER", help="photos to index first (none)")
    serve.add_argument("--ray", metavar="ADDRESS", help="search shards by this Ray cluster: auto, local or HOST:PORT")
    serve.add_argument("--shards", type=a_path, nargs="+", metavar="DIR", help="with --ray: the shards of the index")
    serve.add_argument("--replicas", type=int, metavar="N", help="with --ray: copies of each shard (1)")
    serve.add_argument("--open", action="store_true", help="open the page in a browser")
    serve.add_argument("--host", help="address to listen on (127.0.0.1)")
    serve.add_argument("--port", type=int, help="port to listen on (8000); 0 takes any free one")
    _add_settings(serve)


def _add_search(commands: Subparsers) -> None:
    search = _add_command(
        commands,
        "search",
        "search once, by a server of the index if one runs here",
        "sketch-search search cat.png --k 10\nsketch-search search - --json < cat.png",
    )
    # The usage with every option would push the help off the screen; they are listed below it anyway.
    search.usage = f"{PROGRAM} search [SKETCH] [OPTION ...]"
    search.add_argument("sketch", nargs="?", help="image file or - (stdin); none with --like or --text")
    # Texts, all of them: they are checked like the query of an HTTP request, and refused with the same sentences.
    search.add_argument("--k", help="results wanted, photos or kinds (20)")
    search.add_argument("--offset", help="results to skip (0)")
    search.add_argument("--quality", help="fast: by vectors alone; good; or best: every photo is scored (good)")
    search.add_argument("--nprobe", help="open so many clusters at least, or all for the exhaustive search")
    search.add_argument("--method", help="rn, ret, fused, clip or auto (auto)")
    search.add_argument("--rerank", help="photos that the relation network scores (96 or 192; with --nprobe all)")
    search.add_argument("--variants", help="variants of the sketch that are encoded, 1 to 3 (3)")
    search.add_argument("--diffuse", choices=["yes", "no"], help="photos that look alike share their scores")
    search.add_argument("--budget-ms", metavar="MS", help="score no further photos after so many milliseconds")
    search.add_argument("--view", help="photos; kinds: photos that look alike together; or auto (photos)")
    search.add_argument("--fold", choices=["yes", "no"], help="near duplicates, as bursts are, become one result (no)")
    search.add_argument(
        "--like", action="append", metavar="PHOTO", help="a photo that is wanted: path or id; repeatable"
    )
    search.add_argument("--unlike", action="append", metavar="PHOTO", help="one that is not, with its kind; repeatable")
    search.add_argument("--text", metavar="WORD", help="find what this word names; by CLIP, any text")
    search.add_argument(
        "--photo",
        action="store_const",
        const="photo",
        dest="kind",
        help="the image is a photo: find what looks like it",
    )
    search.add_argument(
        "--folder", action="append", metavar="PATH", help="only photos below it, as results show it; repeatable"
    )
    search.add_argument("--after", metavar="DAY", help="only photos taken on 2023-01-31 or later")
    search.add_argument("--before", metavar="DAY", help="only photos taken on this day or earlier")
    search.add_argument("--json", action="store_true", dest="as_json", help="print what POST /search answers")
    search.add_argument(
        "--no-server", action="store_false", dest="server", help="do not ask a server of this index that runs here"
    )
    _add_settings(search)


def _add_explain(commands: Subparsers) -> None:
    explain = _add_command(
        commands,
        "explain",
        "write a page that shows why photos match a sketch, or are like a photo",
        "sketch-search explain cat.png -o why\nsketch-search explain cat.png a.jpg b.jpg -o why\n"
        "sketch-search explain a.jpg b.jpg --like cats/3.jpg -o why",
    )
    explain.add_argument("sketch", type=a_path, nargs="?", help="an image file; none with --like")
    explain.add_argument("photos", type=a_path, nargs="*", metavar="PHOTO", help="image files (the best of the index)")
    explain.add_argument("--like", metavar="PHOTO", help="why they are like this photo of the index: path or id")
    explain.add_argument(
        "--photo",
        action="store_const",
        const="photo",
        default="sketch",
        dest="kind",
        help="the image is a photo: why they are like it",
    )
    explain.add_argument("-o", "--output", type=a_path, required=True, metavar="DIR", help="folder for the files")
    _add_settings(explain)


def _add_demo(commands: Subparsers) -> None:
    demo = _add_command(
        commands,
        "demo",
        "index a sample gallery, serve it, search it once",
        "sketch-search demo try-it\nsketch-search demo try-it --photos ~/Pictures",
    )
    demo.add_argument("folder", type=a_path, metavar="DIR", help="where to keep the gallery and its index")
    demo.add_argument("--photos", type=a_path, metavar="FOLDER", help="photos to index instead of the sample gallery")
    demo.add_argument("--port", type=int, help="port to listen on (8000); 0 takes any free one")
    demo.add_argument("--weights", type=a_path, default=argparse.SUPPRESS, help=_WEIGHTS)


def _add_openapi(commands: Subparsers) -> None:
    openapi = _add_command(
        commands, "openapi", "print the OpenAPI document of the HTTP API", "sketch-search openapi --output api.json"
    )
    openapi.add_argument("--output", type=a_path, metavar="FILE", help="file to write it to (standard output)")


def _add_command(
    commands: Subparsers,
    name: str,
    purpose: str,
    examples: str,
) -> Parser:
    indented = "\n".join(f"  {line}" for line in examples.splitlines())
    return commands.add_parser(
        name,
        help=purpose,
        description=f"{purpose[0].upper()}{purpose[1:]}.",
        epilog=f"examples:\n{indented}",
        formatter_class=_FORMAT,
    )


def _add_settings(parser: argparse.ArgumentParser, default: str | None = argparse.SUPPRESS) -> None:
    parser.add_argument(
        "--index",
        type=a_path,
        default=default,
        metavar="DIR",
        help="folder of the index (in the platform's data folder)",
    )
    parser.add_argument("--weights", type=a_path, default=default, metavar="FILE", help=_WEIGHTS)
    parser.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default=default, metavar="NAME", help="auto, cpu or cuda (auto)"
    )
