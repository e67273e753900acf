"""One decoding process, as the program that started it sees it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from model.decoding.messages import READY, BrokenReply, Request, receive_picture, send_request
from model.errors import CostlyImage, DecodingUnavailable, SlowImage
from model.images import OpenedImage

# Bytes that a pipe holds, as far as the system gives them: with the usual 64 KiB both sides wait for each other often.
_PIPE_BYTES = 1 << 20
# Even a busy machine starts a process in a tenth of it.
_START_SECONDS = 60
_TUNING = {
    # One thread a process is enough.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    # glibc keeps so many bytes for the next picture. Fetching them from the system for each picture costs a fifth more.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}


class DecoderDied(Exception):
    """The process ended while it decoded, and not because of a limit.

    Attributes:
        by_signal: the number of the signal that ended it, or None.
    """

    def __init__(self, by_signal: int | None) -> None:
        super().__init__(by_signal)
        self.by_signal = by_signal


class DecodingProcess:
    """A process that decodes one picture at a time. It ends with this program, however that ends.

    To be used by one thread at a time.
    """

    def __init__(self) -> None:
        """Raises DecodingUnavailable: the system cannot start the process, or ends it before it can be asked."""
        try:
            self._process = subprocess.Popen(
                # -P: a file of the current folder must not be taken for a module.
                [sys.executable, "-P", "-m", "model.decoding.program"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=_environment(),
                # Ctrl-C at the terminal is for this program alone, which then ends its processes.
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        except OSError as error:
            raise _unavailable(error.strerror or str(error)) from error
        self._requests, self._replies = cast(BinaryIO, self._process.stdin), cast(BinaryIO, self._process.stdout)
        _widen(self._requests, self._replies)
        with self._killed_after(_START_SECONDS, threading.Event()):
            ready = self._replies.read(len(READY))
        if ready != READY:
            self.close()
            raise _unavailable("it ended before it could begin")

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def run(self, request: Request) -> OpenedImage:
        """The picture that the request's job makes. After any error but ImageError the process is gone.

        Raises:
            ImageError: what the job raises. CostlyImage: a limit was exceeded, too; SlowImage: that of time.
            DecoderDied: the process ended for another reason.
        """
        late = threading.Event()
        try:
            with self._killed_after(request.limits.clock_seconds, late):
                send_request(self._requests, request)
                return receive_picture(self._replies, request.job.most_pixels)
        except MemoryError as error:
            raise CostlyImage(
                f"decoding it takes more than {request.limits.memory >> 20:,} MiB of memory; make it smaller"
            ) from error
        except (BrokenReply, OSError) as error:
            self.close()
            code = self._process.returncode
            if late.is_set() or (code < 0 and -code == getattr(signal, "SIGXCPU", None)):
                spent = f"{request.limits.clock_seconds:g}" if late.is_set() else f"{request.limits.cpu_seconds} CPU"
                raise SlowImage(f"decoding it takes more than {spent} seconds; save it anew, or smaller") from error
            raise DecoderDied(-code if code < 0 else None) from error

    @contextmanager
    def _killed_after(self, seconds: float, late: threading.Event) -> Iterator[None]:
        """Kill the process where the block takes longer, and set ``late``."""

        def give_up() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(seconds, give_up)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError as error:
            self.close()
            raise _unavailable(str(error)) from error
        try:
            yield
        finally:
            timer.cancel()

    def close(self) -> None:
        """End the process and wait for that."""
        self._process.kill()
        for stream in (self._requests, self._replies):
            with suppress(OSError):  # what it has not read is of no use any more
                stream.close()
        self._process.wait()


def _unavailable(reason: str) -> DecodingUnavailable:
    return DecodingUnavailable(
        f"no process can be started that decodes pictures ({reason}); free memory, or allow more open files and "
        "processes, and run the same again"
    )


def _environment() -> dict[str, str]:
    """That of this program, without the service's settings, among which is its key; with what makes decoding fast."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SBIR_")}
    home = str(Path(__file__).parents[2])
    path = os.pathsep.join([home, *(entry for entry in sys.path if entry and entry != home)])
    return {**kept, **_TUNING, "PYTHONPATH": path}


def _widen(*pipes: BinaryIO) -> None:
    if sys.platform == "linux":
        import fcntl

        for pipe in pipes:
            with suppress(OSError):
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
