"""The build of the index that people start from the page: a process of its own, so that searches go on beside it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from indexer import BadInvocation, IndexRefused, Request, build_growing, live_stamp, read_progress, read_summary
from model.terminal import Refusal, expanded, resolved
from service.engine import open_matcher
from service.errors import BuildRefused, NotReady
from service.schemas import BuildInfo
from service.settings import Settings, index_path

# Searches of the server go before the build.
_NICENESS = 5
_STOPPED = "The build ended before it was done. What it has done is kept: start it again, and it goes on."


class Builder:
    """Starts builds of the index that the settings name, one at a time. Threads may share it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._process: multiprocessing.process.BaseProcess | None = None
        self._told: Connection | None = None
        self._failed: str | None = None

    def start(self, folder: str | None) -> None:
        """Starts to index a folder of this machine, or to go on with the folders that the index has.

        Raises:
            BuildRefused: a build runs already; or the index has other folders, which it would lose.
            BadInvocation: there is no such folder, or it cannot be read.
            NotReady: what is there as the index is damaged, or of another version.
        """
        index = index_path(self._settings)
        folders = () if folder is None else (expanded(folder),)
        try:
            Request(folders).check(index)
            known = [] if live_stamp(index) is None else [root.path for root in read_summary(index).manifest.roots]
        except IndexRefused as error:
            raise NotReady(str(error)) from error
        for place in folders:
            if not place.is_absolute():
                raise BadInvocation(f"{folder} is no whole path; write one such as {Path.home() / 'Pictures'}.")
            if known and known != [str(resolved(place))]:
                raise BuildRefused(f"The index has other folders: {', '.join(known)}. Add to them on the command line.")
            try:
                os.scandir(place).close()
            except OSError as error:
                raise BadInvocation(
                    f"{folder} cannot be read: {error.strerror}; give permission, or name another."
                ) from error
        with self._lock:
            if self._running():
                raise BuildRefused("A build of the index is running already; its progress is on the page.")
            # A fresh interpreter, since a copy of one with threads may hang.
            fresh = multiprocessing.get_context("spawn")
            self._told, telling = fresh.Pipe(duplex=False)
            self._failed = None
            self._process = fresh.Process(target=_build, args=(self._settings, folders, telling), daemon=True)
            self._process.start()
            telling.close()

    def info(self) -> BuildInfo | None:
        """How far the build is that runs, or was the last one; None where there has been none."""
        with self._lock:
            running = self._running()
            state = read_progress(index_path(self._settings))
            if state is None and not running and self._failed is None:
                return None
            # Of a build that runs, the last state may be that of the generation before, or of another build.
            known = {} if state is None or (running and state.phase in ("done", "stopped")) else state.model_dump()
            return BuildInfo.model_validate({**known, "running": running, "failed": self._failed})

    def _running(self) -> bool:
        if self._process is None or self._told is None:
            return False
        # The end of the pipe is told as something to read, too.
        if not self._told.poll():
            return True
        with suppress(EOFError):
            self._failed = _STOPPED
            self._failed = self._told.recv()
        self.close()
        return False

    def close(self) -> None:
        """Ends the build that runs. What it has done is kept."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.join()


def _build(settings: Settings, folders: tuple[Path, ...], telling: Connection) -> None:
    """Builds, and tells why that failed, or None."""
    # Ctrl-C reaches this process, too; the server ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "nice"):
        os.nice(_NICENESS)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    failed = None
    try:
        build_growing(folders, index_path(settings), open_matcher(settings))
    except Refusal as error:
        text = str(error)
        failed = text[:1].upper() + text[1:]
    telling.send(failed)
