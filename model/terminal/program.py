"""The frame in which each program runs: whatever goes wrong becomes a sentence and an exit code here."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress

from model.terminal.interrupts import STOPPED
from model.terminal.refusal import Refusal
from model.terminal.text import printable

BAD_INPUT = 2
# As shells say it: 128 and the number of the signal, SIGPIPE.
_NOBODY_READS = 141


def run_program(
    work: Callable[[], int], *, prefix: str = "error", prog: str = "sketch-search", stopped: str = "stopped."
) -> int:
    """Do the work of a program.

    Args:
        work: gives the exit code. SystemExit, as from ``argparse``, passes through.
        prefix: stands before the sentence on an error. prog: how the user called the program.
        stopped: what is said after Ctrl-C.

    Returns:
        the exit code: the one of ``work``; 2 after a sentence on standard error, for what the user can mend, such as a
        closed standard output, into which results would be lost without a word; 130 after Ctrl-C; 141 where nobody
        reads the output any more, as in ``program | head``.
    """
    if sys.stdout is None:
        return _end(f"{prefix}: standard output is closed; send it to a file, or to {os.devnull}.", BAD_INPUT)
    _accept_every_character()
    try:
        return _with_sentences(work, prefix, prog)
    except KeyboardInterrupt:
        return _end(stopped, STOPPED)


def _with_sentences(work: Callable[[], int], prefix: str, prog: str) -> int:
    """Do the work of ``run_program``, but let Ctrl-C pass: it may come while a sentence is written, too."""
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
    except OSError as error:
        return _end(f"{prefix}: {_told(error)}", BAD_INPUT)
    except MemoryError:
        return _end(f"{prefix}: there is not enough memory; end other programs, or ask for less at once.", BAD_INPUT)


def as_called(sentence: str, prog: str) -> str:
    """The sentence with its commands as this user calls them.

    Sentences name the installed command, ``sketch-search index`` or ``sketch-search model``. Who has called ``python -m
    indexer`` may have no other.
    """
    if not prog.startswith("python -m "):
        return sentence
    sentence = sentence.replace("sketch-search index", "python -m indexer")
    return sentence.replace("sketch-search model", "python -m model")


def _told(error: OSError) -> str:
    if error.filename is None:
        return str(error.strerror or error)
    return f"{os.fsdecode(error.filename)}: {error.strerror}; check its name and that it may be read and written."


def _end(sentence: str, code: int) -> int:
    with suppress(OSError):
        print(printable(sentence), file=sys.stderr, flush=True)
    return code


def _accept_every_character() -> None:
    """Write what a terminal's encoding does not have as escapes: else a report with such a name in it would be lost."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Send nowhere all that is still to be written; else Python would complain as it ends."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
