"""Runs decoding processes, each of which decodes one picture at a time, for several threads."""

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from sketch_search.model.decoding import messages
from sketch_search.model.decoding.messages import CLOCK_PER_CPU, PIXELS_A_SECOND, READY, Job, Limits, Request
from sketch_search.model.errors import DecodingUnavailable, EndedDecoding, SlowImage, UndecodableImage
from sketch_search.model.images import OpenedImage, read_image_file
from sketch_search.model.terminal import start_child

# The most bytes of a file that are looked at outside of such a process.
_SMALL = 1024
# Seconds to wait for a process to start. Even a busy machine starts one in a tenth of this.
_START_SECONDS = 60
_TUNING = {
    # One thread per process is enough.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    # glibc keeps this memory for the next picture. Allocating it for each picture costs a fifth more time.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}


class DecoderCrashed(UndecodableImage):
    """The process ended while decoding, but not by a limit."""


class DecodingProcess:
    """A process that decodes one picture at a time, for one thread. It ends with this program, however that ends."""

    def __init__(self) -> None:
        """Starts it. Raises DecodingUnavailable."""
        try:
            self._process = start_child("-m", f"{__package__}.program", **_TUNING)
        except OSError as error:
            raise _unavailable(error.strerror or str(error)) from error
        self._requests, self._replies = cast(BinaryIO, self._process.stdin), cast(BinaryIO, self._process.stdout)
        with self._killed_after(_START_SECONDS):
            ready = self._replies.read(len(READY))
        if ready != READY:
            self.close()
            raise _unavailable("it ended before it could start")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def run(self, request: Request, *, quick: bool = False) -> OpenedImage:
        """Runs a job. Errors but its own end the process: CostlyImage, SlowImage, EndedDecoding, DecoderCrashed."""
        (job, limits, _), start, computed = request, time.monotonic(), _cpu_seconds(self.pid)
        try:
            with self._killed_after(limits.clock_seconds):
                messages.send_request(self._requests, request)
                return messages.receive_picture(self._replies, job)
        except (EOFError, OSError) as error:
            late = time.monotonic() - start >= limits.clock_seconds
            computed = _cpu_seconds(self.pid) - computed
            self.close()
            code = self._process.returncode
            if late and not quick and computed < limits.clock_seconds / CLOCK_PER_CPU:
                # What it did not compute is no fault of the picture.
                raise EndedDecoding(
                    f"the decoder stood still for {limits.clock_seconds:g} seconds, twice; free memory, and try again"
                ) from error
            if late or -code == getattr(signal, "SIGPROF", None):
                spent = f"{limits.clock_seconds:g}" if late else f"{limits.cpu_seconds:g} CPU"
                beside = f", and one for each {PIXELS_A_SECOND / 1e6:g} million pixels" if limits.a_pixel[0] else ""
                raise SlowImage(
                    f"decoding it takes more than {spent} seconds{beside}; save it again, or smaller"
                ) from error
            if -code == getattr(signal, "SIGKILL", None):
                raise EndedDecoding(
                    "the system killed the decoder twice, probably out of memory; make it smaller"
                ) from error
            raise DecoderCrashed("the file is damaged: it crashes its decoder") from error

    @contextmanager
    def _killed_after(self, seconds: float) -> Iterator[None]:
        timer = threading.Timer(seconds, self._process.kill)
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
        self._process.kill()
        for stream in (self._requests, self._replies):
            with suppress(OSError):  # unread data is no longer needed
                stream.close()
        self._process.wait()


def _cpu_seconds(pid: int) -> float:
    """Returns the CPU time that a process has used; without bound where the system does not say it by /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return math.inf
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _unavailable(reason: str) -> DecodingUnavailable:
    return DecodingUnavailable(
        f"no process can be started to decode pictures ({reason}); free memory, or allow more open files and "
        "processes, and try again"
    )


class RunJob(Protocol):
    """Does a job with the bytes of a file. Several threads may call it."""

    def __call__(self, data: bytes, job: Job, *, quick: bool = False) -> OpenedImage:
        """Makes an 8-bit RGB picture. Raises ImageError; with ``quick``, SlowImage after a second or so."""


def decode_inline(data: bytes, job: Job, *, quick: bool = False) -> OpenedImage:
    """Does a job in this process and without limits: for a person's own files, one by one."""
    return job.run(data)


class Decoders:
    """Decodes in processes, started on demand and again when ended, all of which end with this context manager."""

    def __init__(self, most: int, limits: Limits | None = None) -> None:
        """most: how many processes there may be. limits: of each picture; None for limits that suit its size."""
        self._limits = limits
        self._room = threading.Semaphore(most)
        self._lock = threading.Lock()
        self._idle: list[DecodingProcess] = []
        self._closed = False

    def __enter__(self) -> "Decoders":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def idle(self) -> tuple[int, ...]:
        with self._lock:
            return tuple(process.pid for process in self._idle)

    def start(self) -> None:
        """Starts a process, so that the first picture need not wait for it."""
        with self._room, self._process():
            pass

    def run(self, data: bytes, job: Job, *, quick: bool = False) -> OpenedImage:
        """Does a job with a file's bytes; with ``quick``, only if it takes no longer than ordinary pictures.

        Raises ImageError as the job does, CostlyImage or SlowImage beyond a limit, UndecodableImage if the process
        crashes, EndedDecoding if the system ends it, DecodingUnavailable if none can be started.
        """
        if not data or (len(data) <= _SMALL and not job.sent):
            # A small file that is empty or not a picture needs no process; of others nothing is read here.
            read_image_file(data)
        limits = self._limits or Limits.of(len(data), job.max_pixels)
        request = job, limits.quick() if quick else limits, data
        with self._room:
            # The process may have been killed for an unrelated reason. Only a system that is short of memory kills it
            # twice in a row.
            with suppress(DecoderCrashed, EndedDecoding), self._process() as process:
                return process.run(request, quick=quick)
            with self._process() as process:
                return process.run(request, quick=quick)

    def close(self) -> None:
        """Ends all processes, each after its current picture."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for process in idle:
            process.close()

    @contextmanager
    def _process(self) -> Iterator[DecodingProcess]:
        with self._lock:
            while self._idle and not self._idle[-1].alive:
                self._idle.pop().close()
            waiting = self._idle.pop() if self._idle else None
        process = waiting or DecodingProcess()
        try:
            yield process
        finally:
            with self._lock:
                keep = not self._closed and process.alive
                if keep:
                    self._idle.append(process)
            if not keep:
                process.close()
