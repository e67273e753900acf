"""python -m tests.indexer.killed_builds PHOTOS WEIGHTS OUT COUNT: indexing that is killed at many moments.

Every build runs in a process of its own, forked so that nothing is imported twice. With a small COUNT it decodes
there, and waits for no disk; with a large one it starts decoding processes and syncs, as users' builds do.
``OUT/undisturbed`` is built in one go; ``OUT/killed-I`` for I in 0..COUNT-1 is killed, then built again, every second
one killed once more, and built to the end. Then photos come, change and go, and the same is done to updates of copies
of these indexes: ``OUT/updated`` and ``OUT/killed-update-I``. Every third moment is a time, the others are in front of
a write; all are spread over the whole build.
"""

import gc
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import ParamSpec, TypeVar

import pytest
import torch

from sketch_search import model
from sketch_search.indexer import BuildRequest, build, verify
from sketch_search.indexer.building import staging
from sketch_search.indexer.building.staging import Progress
from sketch_search.model.decoding import Decoders, File, Job, decode_inline
from sketch_search.model.images import OpenedImage
from tests.indexer.galleries import save_photo, save_photos
from tests.programs import forget_syncs


class InThisProcess(Decoders):
    """Decodes where it is called, because starting a process takes longer than a small build."""

    def run(self, file: File, job: Job, *, quick: bool = False) -> OpenedImage:
        return decode_inline(file, job)


class Stopped(Exception):
    """Raised in a build to stop it."""


class StopAfter(Progress):
    def __init__(self, photos: int, *, bar: bool = False) -> None:
        super().__init__(bar=bar)
        self._left = photos

    def advance(self, done: int = 1, bad: int = 0, *, known: int = 0) -> None:
        super().advance(done, bad, known=known)
        self._left -= done
        if self._left <= 0:
            raise Stopped


P = ParamSpec("P")
R = TypeVar("R")


# Says to a process that is about to work when it is to be killed.
Fate = Callable[[], object]


def in_child(work: Callable[[], object], fate: Fate) -> int:
    """Runs ``work`` in a forked process after ``fate``. Returns how that ended."""
    child = os.fork()
    if not child:
        try:
            fate()
            work()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def count_writes(stop_at: int | None = None, log: Path | None = None) -> None:
    """Count syncs and renames from now on, in ``log``, too; kill this process before number ``stop_at``."""
    done = 0

    def counted(call: Callable[P, R]) -> Callable[P, R]:
        def step(*args: P.args, **kwargs: P.kwargs) -> R:
            nonlocal done
            if done == stop_at:
                os.kill(os.getpid(), signal.SIGKILL)
            done += 1
            if log is not None:
                log.write_text(str(done))
            return call(*args, **kwargs)

        return step

    os.fsync, os.replace = counted(os.fsync), counted(os.replace)


def fates(count: int, writes: int, seconds: float, random: Random) -> Iterator[tuple[Fate, bool]]:
    """``count`` random moments, one in each equal part of a build of so many writes and seconds; whether it is a time.

    Nobody handles the alarm, so it ends the process as abruptly as SIGKILL does.
    """
    for number in range(count):
        share, timed = (number + random.random()) / count, number % 3 == 2
        alarm = partial(signal.setitimer, signal.ITIMER_REAL, max(1e-4, share * seconds))
        yield alarm if timed else partial(count_writes, int(share * writes)), timed


def change(photos: Path) -> None:
    save_photos(photos, 7, start=40)
    old = sorted(photos.glob("*.png"))
    save_photo(old[0], 60)
    os.utime(old[0], ns=(1, 1))
    old[1].rename(photos / "renamed.png")
    old[2].unlink()


def disturb_builds(photos: Path, matcher: model.Matcher, out: Path, count: int) -> None:
    random = Random(count)

    def run(index: Path, fate: Fate = count_writes) -> int:
        # The clock stands still, or a slow machine would write its progress more often.
        progress = Progress(clock=lambda: 0.0)
        return in_child(partial(build, index, BuildRequest([photos], embedder="ret", batch=3), matcher, progress), fate)

    def disturb(undisturbed: Path, killed: Callable[[int], Path]) -> None:
        log = out / "writes"
        started = time.monotonic()
        assert run(undisturbed, partial(count_writes, log=log)) == 0
        seconds, writes = time.monotonic() - started, int(log.read_text())
        for number, (fate, timed) in enumerate(fates(count, writes, seconds, random)):
            index = killed(number)
            live = (index / "CURRENT").exists()
            ended = run(index, fate)
            assert ended in (signal.SIGALRM, 0) if timed else ended == signal.SIGKILL
            assert not live or verify(index) == []
            if number % 2:
                run(index, partial(count_writes, random.randrange(writes)))
                assert not live or verify(index) == []
            assert run(index) == 0

    def built(number: int) -> Path:
        return Path(shutil.copytree(out / f"killed-{number}", out / f"killed-update-{number}"))

    disturb(out / "undisturbed", lambda number: out / f"killed-{number}")
    change(photos)
    disturb(Path(shutil.copytree(out / "undisturbed", out / "updated")), built)


def main(photos: Path, weights: Path, out: Path, count: int) -> None:
    torch.set_num_threads(1)
    many = count > 50
    if not many:
        patch = pytest.MonkeyPatch()
        forget_syncs(patch)
        patch.setattr(staging, "Decoders", InThisProcess)
    # A collection in a fork would touch, and so copy, every page of what is here.
    gc.freeze()
    matcher = model.load(weights, dtype="float32")
    disturb_builds(photos, matcher, out, count)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
