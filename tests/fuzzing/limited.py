"""One function in a process of its own, with limits: what a hostile input does there cannot hurt the test."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Processor seconds and bytes beyond what the process has as it begins.
MOST_SECONDS = 10
MOST_BYTES = 2**30
#: Seconds by the clock, after which a process that computes nothing counts as hanging. A busy machine is slow.
HANGING = 120
# Bytes of a file that a case may write.
_LARGEST_FILE = 2**28


@dataclass(frozen=True)
class Outcome:
    """How a process ended.

    Attributes:
        code: its exit code; negative: the signal that ended it. None: it was killed after HANGING seconds.
        seconds: by the clock. out, err: what it wrote.
    """

    code: int | None
    seconds: float
    out: str
    err: str


def run_limited(
    function: Callable[..., int], arguments: tuple[Any, ...], folder: Path, seconds: int = MOST_SECONDS
) -> Outcome:
    """Call a function of a module in a process with limits; its result is the exit code.

    folder: the process works in it; gets its two outputs, beside it as ``.out`` and ``.err``.
    seconds: of a processor.
    """
    out, err = folder.with_suffix(".out"), folder.with_suffix(".err")
    process = _forks().Process(target=_call, args=(function, arguments, folder, out, err, seconds))
    begun = time.monotonic()
    process.start()
    process.join(HANGING)
    code = process.exitcode
    if code is None:
        process.kill()
        process.join()
    process.close()
    told = [file.read_bytes().decode("utf-8", "backslashreplace") if file.exists() else "" for file in (out, err)]
    return Outcome(code, time.monotonic() - begun, *told)


def _forks() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.fuzzing.preloaded"])
    return context


def _call(
    function: Callable[..., int], arguments: tuple[Any, ...], folder: Path, out: Path, err: Path, seconds: int
) -> None:
    code = 1
    try:
        for number, file in ((1, out), (2, err)):
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, number)
            os.close(descriptor)
        # As a program's that was started with files as its outputs; what the fork inherited may be closed or a pipe.
        sys.stdin = open(os.devnull)  # noqa: SIM115
        sys.stdout = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="strict")
        sys.stderr = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="backslashreplace", buffering=1)
        os.chdir(folder)
        resource.setrlimit(resource.RLIMIT_DATA, (_data_bytes() + MOST_BYTES,) * 2)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        resource.setrlimit(resource.RLIMIT_FSIZE, (_LARGEST_FILE,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        code = function(*arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        # Without what Python does at its end: threads of the programs are daemons, and the fork is not a whole program.
        os._exit(code & 0xFF)


def _data_bytes() -> int:
    """Bytes of memory that this process may write, as RLIMIT_DATA counts them."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmData:")[2].split()[0]) * 1024
