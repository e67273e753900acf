"""Handles the terminal for all programs: escapes unsafe names, prints errors as sentences, and returns exit codes."""

import io
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sketch_search.model.errors import UserError

if TYPE_CHECKING:
    import subprocess


#: Characters without a shape that names need: between letters of Persian, and in emoji of families.
JOINERS = "\u200c\u200d"


def printable(text: str) -> str:
    """Escapes characters by which a file name could forge a line of a report, or rewrite the lines above it."""
    return "".join(c if c.isprintable() or c in JOINERS else repr(c)[1:-1] for c in text)


def printable_json(text: str) -> str:
    """Escapes the same characters in a JSON document as JSON does, so that its meaning stays."""
    return "".join(c if c.isprintable() or c == "\n" or c in JOINERS else json.dumps(c)[1:-1] for c in text)


def plural(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


class HomeUnknown(UserError, OSError):
    """A path begins with "~", and the home folder is unknown."""


def resolve(path: Path) -> Path:
    """Resolves a path's symbolic links; unlike ``Path.resolve``, even a link to itself."""
    return Path(os.path.realpath(path))


def expand_home(path: str | Path) -> Path:
    """Replaces "~" or "~NAME" at the beginning of a path by the home folder. Raises HomeUnknown."""
    full = os.path.expanduser(path)
    if full.startswith("~"):
        home = Path(path).parts[0]
        raise HomeUnknown(f"{path}: the home folder {home} is unknown; write the whole path, or set HOME.")
    return Path(full)


def installed_version() -> str:
    """Returns the version that pip installed, or "not installed"."""
    # Imported late: it takes longer than everything else that printing the help needs.
    from importlib import metadata

    try:
        return metadata.version("sketch-search")
    except metadata.PackageNotFoundError:
        return "not installed"


def start_child(*arguments: str, **environment: str) -> "subprocess.Popen[bytes]":
    """Starts Python with these packages importable, without the service's settings and key, and with pipes."""
    import subprocess

    kept = {name: value for name, value in os.environ.items() if not name.startswith("SKETCH_SEARCH_")}
    home = str(Path(__file__).parents[__name__.count(".")])
    path = os.pathsep.join([home, *(entry for entry in sys.path if entry and entry != home)])
    return subprocess.Popen(
        # -P: a file of the current folder must not be imported as a module.
        [sys.executable, "-P", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**kept, **environment, "PYTHONPATH": path},
        # Ctrl-C at the terminal reaches only this program, which then ends its children.
        start_new_session=True,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )


BAD_INPUT = 2
# The exit codes of shells after SIGINT and SIGPIPE: 128 plus the number of the signal.
_STOPPED, _NOBODY_READS = 130, 141
_NO_MEMORY = "error: not enough memory; end other programs, or process less at once."
#: Optional libraries, and the extra that installs each.
EXTRAS = {
    **dict.fromkeys(("fastapi", "h11", "prometheus_client", "resvg_py", "starlette", "uvicorn"), "server"),
    **dict.fromkeys(("huggingface_hub", "open_clip", "timm"), "clip"),
    **dict.fromkeys(("s3fs", "sshfs"), "remote"),
    "brotli": "jxl",
    "gensim": "words",
    "pillow_heif": "heic",
    "pillow_jxl": "jxl",
    "pypdfium2": "pdf",
    "rawpy": "raw",
    "ray": "ray",
    **dict.fromkeys(("sklearn", "torch"), "train"),
}


def run_program(work: Callable[[], int]) -> int:
    """Runs a program. Returns its code, 2 after a sentence for users, 130 after Ctrl-C, 141 as in ``| head``."""
    if sys.stdout is None:
        return _end(f"error: standard output is closed; send it to a file, or to {os.devnull}.", BAD_INPUT)
    # Otherwise files of an index would get the numbers of the closed streams.
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal's encoding may lack characters.
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return work()
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return _end("stopped; run the same command again to continue.", _STOPPED)
    except BrokenPipeError:
        # At its end, Python would complain about unwritten output.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _NOBODY_READS
    except UserError as error:
        return _end(f"error: {error}", BAD_INPUT)
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in EXTRAS:
            raise
        remedy = f"pip install 'sketch-search[{EXTRAS[library]}]'"
        return _end(f"error: {library} is not installed; run `{remedy}`.", BAD_INPUT)
    except OSError as error:
        return _end(f"error: {_sentence(error)}", BAD_INPUT)
    except ImportError as error:
        # The loader of shared libraries also raises this if there is no memory for a library.
        return _end(f"error: a library cannot be loaded ({error}); free memory, or install it again.", BAD_INPUT)
    except MemoryError:
        return _end(_NO_MEMORY, BAD_INPUT)
    except BaseException as error:
        # A Rust library that does not handle a lack of memory raises this.
        if type(error).__name__ != "PanicException":
            raise
        return _end(_NO_MEMORY, BAD_INPUT)


def _sentence(error: OSError) -> str:
    if error.filename is None:
        return str(error.strerror or error)
    if isinstance(error, IsADirectoryError):
        return f"{os.fsdecode(error.filename)} is a folder; name a file."
    advice = "check its name" + ("" if isinstance(error, FileNotFoundError) else " and that it may be read and written")
    return f"{os.fsdecode(error.filename)}: {error.strerror}; {advice}."


def _end(sentence: str, code: int) -> int:
    with suppress(OSError):
        print(printable(sentence), file=sys.stderr, flush=True)
    return code
