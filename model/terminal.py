"""Holds what the three programs share at the terminal: command lines, names made harmless, errors as sentences.

Beside errors it imports only the standard library, because a program prints its help before anything slow is loaded.
"""

from __future__ import annotations

import argparse
import gc
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from model.errors import Refusal


def printable(text: str) -> str:
    """Escapes characters that break the line, move a terminal's cursor, hide or reorder text, or cannot be encoded.

    A file may have any name. A name with a line break could forge a line of a report, and a name with an escape
    sequence could rewrite the lines above it. These characters are written as Python's escapes, as in ``a\\nb``.
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class HomeUnknown(Refusal, OSError):
    """A path begins with "~", and nobody has such a home folder here."""


def resolved(path: Path) -> Path:
    """Resolves a path's symbolic links, as far as they lead somewhere. ``Path.resolve`` fails at a link to itself."""
    return Path(os.path.realpath(path))


def expanded(path: str | Path) -> Path:
    """Replaces "~" or "~NAME" at the beginning of a path by the home folder.

    Raises HomeUnknown: there is no user of this name; or for "~" alone, HOME is not set and the user has no entry in
    the system's list of users.
    """
    full = os.path.expanduser(path)
    if full.startswith("~"):
        raise HomeUnknown(
            f"{path}: there is no home folder {Path(path).parts[0]}; write the whole path, or set HOME to your folder."
        )
    return Path(full)


def installed_version() -> str:
    """Returns the version that pip installed; "not installed" if the program runs from a folder alone."""
    # This is imported late because it takes longer than everything else that printing the help needs.
    from importlib import metadata

    try:
        return metadata.version("sketch-search")
    except metadata.PackageNotFoundError:
        return "not installed"


class VersionAction(argparse.Action):
    """The option ``--version``, which prints the version, and ends the program. The version is looked up only then."""

    def __init__(self, option_strings: Sequence[str], dest: str, **_: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help="show the version")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(f"sketch-search {installed_version()}")
        parser.exit()


class Parser(argparse.ArgumentParser):
    """A parser without abbreviated options: an abbreviation of one option may tomorrow be that of two."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        """End the program with code 2 and the message, which may repeat parts of the command line."""
        super().error(printable(message))


# The type of the object to which commands are added; argparse has no public name for it.
Subparsers: TypeAlias = "argparse._SubParsersAction[Parser]"


def program_parser(prog: str, description: str, examples: str) -> tuple[Parser, Subparsers]:
    """Makes the parser of a program with commands, and the object to add commands to.

    The attribute ``command`` of the parsed options is the name of the command.

    prog: the program's name for itself. examples: end its help; "{prog}" in them stands for ``prog``.
    """
    top = Parser(
        prog=prog,
        description=description,
        epilog=examples.format(prog=prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action=VersionAction)
    return top, top.add_subparsers(dest="command", required=True, title="commands", metavar="COMMAND")


def a_path(text: str) -> Path:
    """Parses a path on the command line.

    Raises ArgumentTypeError: it is empty, as from a shell variable that is not set, and would mean the current folder;
    or it begins with the name of an unknown user.
    """
    if not text:
        raise argparse.ArgumentTypeError("a path is missing: '' names nothing; write . for the current folder")
    try:
        path = expanded(text)
    except HomeUnknown as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    # A path ./~name has become ~name, which would be taken for a home folder.
    return path.absolute() if path.parts[:1] and path.parts[0].startswith("~") else path


def a_folder(text: str) -> Path | str:
    """Parses a folder of photos on the command line: a URL stays as it is, else as ``a_path`` does."""
    return text if "://" in text else a_path(text)


# The exit code that shells give after SIGINT: 128 and the number of the signal.
STOPPED = 130


@contextmanager
def importing() -> Iterator[None]:
    """While the block imports libraries, Ctrl-C ends the program at once, with code 130.

    Libraries catch the exception that Ctrl-C raises during their imports, or turn it into another, such as a missing
    module. Nothing has begun yet, so nothing needs to be tidied up.

    Garbage collection is off meanwhile: imported objects stay, and looking for garbage takes a tenth of the time.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        with _ended_at_once():
            yield
    finally:
        if collecting:
            gc.enable()


@contextmanager
def _ended_at_once() -> Iterator[None]:
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not usual or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, _end_at_once)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end_at_once(*_: object) -> None:
    os.write(2, b"stopped.\n")
    os._exit(STOPPED)


BAD_INPUT = 2
#: Libraries that a program may lack, and the extra that each comes with.
EXTRAS = {
    **dict.fromkeys(("fastapi", "httptools", "prometheus_client", "starlette", "uvicorn"), "server"),
    **dict.fromkeys(("huggingface_hub", "open_clip", "timm"), "clip"),
    **dict.fromkeys(("s3fs", "sshfs", "webdav4"), "remote"),
    "gensim": "words",
    "pillow_heif": "heic",
    "rawpy": "raw",
    "ray": "ray",
    "sklearn": "train",
}
# The exit code that shells give after SIGPIPE: 128 and the number of the signal.
_NOBODY_READS = 141


def run_program(
    work: Callable[[], int], *, prefix: str = "error", prog: str = "sketch-search", stopped: str = "stopped."
) -> int:
    """Do the work of a program.

    Args:
        work: returns the exit code. SystemExit, as from ``argparse``, passes through.
        prefix: stands before the sentence on an error. prog: how the user called the program.
        stopped: is printed after Ctrl-C.

    Returns the exit code: that of ``work``; 2 after a sentence on standard error, for problems that the user can
    mend, such as an extra that is not installed, or a closed standard output, in which results would be lost silently;
    130 after Ctrl-C; 141 if nobody reads the output any more, as in ``program | head``.
    """
    if sys.stdout is None:
        return _end(f"{prefix}: standard output is closed; send it to a file, or to {os.devnull}.", BAD_INPUT)
    _open_what_is_closed()
    _accept_every_character()
    try:
        return _with_sentences(work, prefix, prog)
    except KeyboardInterrupt:
        return _end(stopped, STOPPED)


def _with_sentences(work: Callable[[], int], prefix: str, prog: str) -> int:
    """Do the work of ``run_program``, but let Ctrl-C pass, since it may come while a sentence is written, too."""
    try:
        try:
            return work()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        return _NOBODY_READS
    except Refusal as error:
        return _end(as_called(f"{prefix}: {error}", prog), BAD_INPUT)
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in EXTRAS:
            raise
        told = f"{library} is not installed; run `pip install 'sketch-search[{EXTRAS[library]}]'`."
        return _end(f"{prefix}: {told}", BAD_INPUT)
    except OSError as error:
        return _end(f"{prefix}: {_told(error)}", BAD_INPUT)
    except ImportError as error:
        # The loader of shared libraries also raises this if there is no memory for a library.
        return _end(f"{prefix}: a library cannot be loaded ({error}); free memory, or install it again.", BAD_INPUT)
    except MemoryError:
        return _end(f"{prefix}: there is not enough memory; end other programs, or ask for less at once.", BAD_INPUT)


def as_called(sentence: str, prog: str) -> str:
    """Writes the commands in a sentence as this user calls them.

    Sentences name the installed command, ``sketch-search index`` or ``sketch-search model``. A user who has called
    ``python -m indexer`` may not have this command.
    """
    if not prog.startswith("python -m "):
        return sentence
    sentence = sentence.replace("sketch-search index", as_module("indexer"))
    return sentence.replace("sketch-search model", as_module("model"))


def as_module(package: str) -> str:
    """Returns the command that runs a package as a program. In an installed wheel it lies below ``sketch_search``."""
    below = __name__.removesuffix("model.terminal")
    return f"python -m {below}{package}"


def _told(error: OSError) -> str:
    if error.filename is None:
        return str(error.strerror or error)
    advice = "check its name" + ("" if isinstance(error, FileNotFoundError) else " and that it may be read and written")
    return f"{os.fsdecode(error.filename)}: {error.strerror}; {advice}."


def _end(sentence: str, code: int) -> int:
    with suppress(OSError):
        print(printable(sentence), file=sys.stderr, flush=True)
    return code


def _open_what_is_closed() -> None:
    """Open closed standard streams on the null device.

    Otherwise files of an index would get their numbers, and a library's output to standard error would go into them.
    """
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def _accept_every_character() -> None:
    """Write characters that a terminal's encoding lacks as escapes, or a report with such a name would be lost."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Discard all output that is still to be written, or Python would complain as it ends."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
