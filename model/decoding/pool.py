"""Decoding for several threads: by as many processes as there are pictures at once, up to a number."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol

from PIL import Image

from model.decoding.job import Job
from model.decoding.limits import Limits
from model.decoding.messages import Request
from model.decoding.process import DecoderDied, DecodingProcess
from model.errors import EndedDecoding, UndecodableImage
from model.images import MAX_PIXELS, OpenedImage, Source, read_image_file


class RunJob(Protocol):
    """Does a job with the bytes of a file. Several threads may call it."""

    def __call__(self, data: bytes, job: Job, *, quick: bool = False) -> Image.Image:
        """An 8-bit RGB picture. Raises ImageError; with ``quick``, SlowImage after a second or so."""
        ...


def run_here(data: bytes, job: Job, *, quick: bool = False) -> Image.Image:
    """Does a job in this process and without limits, quick or not: for a person's own files, one by one."""
    return job.run(data).image


class Decoders:
    """Decodes in other processes, which are started when they are needed, and again when one has ended.

    A picture that crashes its process, or exceeds a limit of ``Limits``, is a bad picture, and harms nothing else. It
    is a context manager; when it is left, or this program ends in any way, all processes end.
    """

    def __init__(self, most: int, limits: Limits | None = None) -> None:
        """
        Args:
            most: how many processes there may be, and so how many pictures are decoded at once.
            limits: of each picture; None for those that suit its size.
        """
        self._limits = limits
        self._room = threading.Semaphore(most)
        self._lock = threading.Lock()
        self._idle: list[DecodingProcess] = []
        self._closed = False

    def __enter__(self) -> Decoders:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def idle(self) -> tuple[int, ...]:
        """The process ids of those that wait for a picture."""
        with self._lock:
            return tuple(process.pid for process in self._idle)

    def start(self) -> None:
        """Start a process, so that the first picture need not wait for it."""
        with self._room, self._process():
            pass

    def run(self, data: bytes, job: Job, *, quick: bool = False) -> Image.Image:
        """Do a job with a file's bytes; with ``quick``, if that takes no longer than with ordinary pictures.

        Raises ImageError: what the job raises. CostlyImage: the picture exceeded a limit; SlowImage: that of time.
        UndecodableImage: the process crashed, too. EndedDecoding: the system ended it. DecodingUnavailable: it cannot
        start one.
        """
        return self._decode(data, job, quick=quick).image

    def _decode(self, data: bytes, job: Job, *, quick: bool = False) -> OpenedImage:
        limits = self._limits or Limits.of(len(data), job.max_pixels)
        request = Request(job, limits.quick() if quick else limits, data)
        with self._room:
            try:
                return self._run(request)
            except DecoderDied:
                # Someone may have killed it for a reason that has nothing to do with this picture.
                try:
                    return self._run(request)
                except DecoderDied as death:
                    raise _bad(death) from death

    def open_image(
        self,
        source: Source,
        *,
        max_pixels: int = MAX_PIXELS,
        least_side: int | None = None,
        sketch: bool = False,
        network_input: int | None = None,
    ) -> Image.Image:
        """Open a picture by the rules of ``model.images.open_image``. Raises CostlyImage for an exceeded limit, too.

        With ``network_input`` the picture comes as large as it is for the network (see ``Job``), and far less has to be
        handed over. ``Preprocessing.pixels`` makes the same of this one as of the whole photo, unless it pads.
        """
        opened = self.open_dated(
            source, max_pixels=max_pixels, least_side=least_side, sketch=sketch, network_input=network_input
        )
        return opened.image

    def open_dated(
        self,
        source: Source,
        *,
        max_pixels: int = MAX_PIXELS,
        least_side: int | None = None,
        sketch: bool = False,
        network_input: int | None = None,
    ) -> OpenedImage:
        """Open a picture by the rules of ``open_image``, and say on which day it was taken."""
        job = Job(max_pixels, least_side, sketch, network_input=network_input)
        return self._decode(read_image_file(source), job)

    def close(self) -> None:
        """End all processes. Those that decode are ended when they are done."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for process in idle:
            process.close()

    def _run(self, request: Request) -> OpenedImage:
        with self._process() as process:
            return process.run(request)

    @contextmanager
    def _process(self) -> Iterator[DecodingProcess]:
        """A process that nobody else uses meanwhile."""
        process = self._waiting() or DecodingProcess()
        try:
            yield process
        finally:
            with self._lock:
                keep = not self._closed and process.alive
                if keep:
                    self._idle.append(process)
            if not keep:
                process.close()

    def _waiting(self) -> DecodingProcess | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                process = self._idle.pop()
            if process.alive:
                return process
            process.close()


def _bad(death: DecoderDied) -> UndecodableImage | EndedDecoding:
    if death.by_signal == getattr(signal, "SIGKILL", None):
        # Nobody does this twice in a row but a system that is short of memory.
        return EndedDecoding("the system ended its decoding twice, probably for want of memory; make it smaller")
    return UndecodableImage("the file is damaged: it crashes its decoder")
