"""Reports the progress of a build: by a progress bar for people, and by a JSON file for machines."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, Never

from pydantic import BaseModel, ConfigDict, ValidationError
from tqdm import tqdm

from sketch_search.indexer.errors import IndexUnwritable
from sketch_search.indexer.store.files import write_atomically
from sketch_search.indexer.store.location import IndexFolder, refuse_if_unwritable
from sketch_search.model.files import read_regular

Phase = Literal["reading", "encoding", "clustering", "writing", "done", "stopped"]
_INTERVAL = 1.0
# Seconds between two lines where there is no terminal for a bar: each pause is twice the last one, up to the second.
_FIRST_LINES, _LINES = 4.0, 32.0
_MAX_BYTES = 10_000


class ProgressState(BaseModel):
    """The state of a build at one moment.

    done, total: photos of this phase, in "encoding" with those that need not be read. bad: unusable files so far.
    photos_per_second, seconds_left: None before the first photo. started, updated: seconds since the epoch.
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
    """Reports the progress of a build to a file, and with ``bar`` on standard error, as a bar or lines."""

    def __init__(self, *, bar: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._bar_wanted = bar
        self._bar: tqdm[Never] | None = None
        self._file: Path | None = None
        self._clock = clock
        self._started = time.time()
        self._phase: Phase = "reading"
        self._phase_start = clock()
        self._written = float("-inf")
        self._said, self._pause = clock(), _FIRST_LINES
        self._done = self._total = self._bad = self._skipped = self._known = 0

    @contextmanager
    def of_build(self, file: Path) -> Iterator[None]:
        """While the block runs, writes the JSON document to ``file``, at most once a second within a phase."""
        self._file = file
        ended: Phase = "stopped"
        try:
            yield
            ended = "done"
        finally:
            self._close_bar()
            self._phase = ended
            # The build may have stopped because nothing can be written.
            with suppress(IndexUnwritable):
                self._write()

    def start(self, phase: Phase, total: int = 0) -> None:
        """Begins a phase of ``total`` photos; 0 if their number is not known."""
        self._close_bar()
        skipped = self._skipped if phase == "encoding" else 0
        self._phase, self._done, self._total, self._known = phase, skipped, total + skipped, 0
        self._phase_start = self._clock()
        if self._bar_wanted and self._total:
            self._bar = tqdm(
                total=self._total, initial=self._done, desc=self._phase, unit="photo", dynamic_ncols=True, disable=None
            )
        self._write()

    def skip(self, files: int, bad: int = 0) -> None:
        """Counts files that need not be read as done in the phase "encoding", which comes later."""
        self._skipped, self._bad = self._skipped + files, self._bad + bad

    def advance(self, done: int = 1, bad: int = 0, *, known: int = 0) -> None:
        """Counts files. ``known`` of them were only read, as after a resumption, and say nothing of the speed."""
        self._done += done
        self._bad += bad
        self._known += known
        if self._bar is not None:
            self._bar.update(done)
        if self._clock() - self._written >= _INTERVAL:
            self._write()

    def say(self, sentence: str) -> None:
        if self._bar_wanted:
            tqdm.write(sentence, file=sys.stderr)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _write(self) -> None:
        self._written = self._clock()
        elapsed = self._written - self._phase_start
        done = self._done - self._known - (self._skipped if self._phase == "encoding" else 0)
        rate = done / elapsed if done and elapsed > 0 else None
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
        if self._bar_wanted and self._written - self._said >= self._pause and not sys.stderr.isatty():
            self._said, self._pause = self._written, min(2 * self._pause, _LINES)
            print(f"{self._phase}: {self._done} of {self._total} photos", file=sys.stderr, flush=True)
        if self._file is not None:
            with refuse_if_unwritable(self._file):
                write_atomically(self._file, state.model_dump_json().encode())


def read_progress(index: Path) -> ProgressState | None:
    """Reads the last reported state of the last build of an index; None if there was no build."""
    try:
        return ProgressState.model_validate_json(read_regular(IndexFolder(index).progress, _MAX_BYTES))
    except (OSError, ValidationError):
        return None
