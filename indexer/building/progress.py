"""How far a build is: a bar for people, a JSON file for machines."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Never

from pydantic import BaseModel, ConfigDict, ValidationError
from tqdm import tqdm

from indexer.store import IndexFolder, write_atomically

Phase = Literal["reading", "encoding", "clustering", "writing", "done", "stopped"]
_INTERVAL = 1.0


class ProgressState(BaseModel):
    """One look at a build.

    Attributes:
        phase: "done" and "stopped" are final; a killed build stays in the phase it was in.
        done, total: photos in this phase. bad: files that could not be indexed, so far.
        photos_per_second, seconds_left: of this phase; None before there is anything to tell.
        started, updated: seconds since the epoch. pid: the building process.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    phase: Phase
    done: int
    total: int
    bad: int
    photos_per_second: float | None
    seconds_left: float | None
    started: float
    updated: float
    pid: int


class Progress:
    """Takes the steps of a build and shows them.

    Args:
        bar: draw a bar on standard error where that is a terminal; a log never gets one.
        file: where to keep the JSON document; replaced atomically, at most once a second within a phase.
    """

    def __init__(
        self, *, bar: bool = False, file: Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._bar_wanted = bar
        self._bar: tqdm[Never] | None = None
        self._files = [file.expanduser()] if file is not None else []
        self._clock = clock
        self._started = time.time()
        self._phase: Phase = "reading"
        self._phase_start = clock()
        self._written = float("-inf")
        self._done = self._total = self._bad = 0

    def also_write(self, file: Path) -> None:
        """Keep the JSON document in one more place."""
        self._files.append(file)

    def start(self, phase: Phase, total: int = 0) -> None:
        """Begin a phase of ``total`` photos, 0 where that is not known."""
        self._close_bar()
        self._phase, self._done, self._total = phase, 0, total
        self._phase_start = self._clock()
        if self._bar_wanted and total:
            self._bar = tqdm(total=total, desc=phase, unit="photo", dynamic_ncols=True, disable=None)
        self._write()

    def advance(self, done: int = 1, bad: int = 0) -> None:
        """Count ``done`` more photos of this phase, ``bad`` of them unusable."""
        self._done += done
        self._bad += bad
        if self._bar is not None:
            self._bar.update(done)
        if self._clock() - self._written >= _INTERVAL:
            self._write()

    def finish(self, phase: Literal["done", "stopped"]) -> None:
        """The build is over."""
        self._close_bar()
        self._phase = phase
        self._write()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _write(self) -> None:
        self._written = self._clock()
        elapsed = self._written - self._phase_start
        rate = self._done / elapsed if self._done and elapsed > 0 else None
        state = ProgressState(
            phase=self._phase,
            done=self._done,
            total=self._total,
            bad=self._bad,
            photos_per_second=rate,
            seconds_left=(self._total - self._done) / rate if rate else None,
            started=self._started,
            updated=time.time(),
            pid=os.getpid(),
        )
        for file in self._files:
            write_atomically(file, state.model_dump_json().encode())


def read_progress(index: Path) -> ProgressState | None:
    """What the last build of an index said last; None where there was none."""
    try:
        return ProgressState.model_validate_json(IndexFolder(index).progress.read_bytes())
    except (OSError, ValidationError):
        return None
