"""python -m tests.indexer.killed_builds PHOTOS WEIGHTS OUT COUNT: builds that are killed, and gone on with.

Every build runs in a process of its own, forked so that nothing is imported twice. ``OUT/undisturbed`` is built in one
go; ``OUT/killed-I`` for I in 0..COUNT-1 is killed by SIGKILL (which nothing can catch) at one of COUNT points spread
over all its writes, then built again, every second one killed once more, and built to the end. Then photos come, change
and go, and the same is done to updates of copies of these indexes: ``OUT/updated`` and ``OUT/killed-update-I``.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch

import model
from indexer import build, verify
from indexer.progress import Progress
from tests.indexer.galleries import save_photo, save_photos

P = ParamSpec("P")
R = TypeVar("R")


def in_child(work: Callable[[], None]) -> int:
    """Run ``work`` in a forked process; its wait status."""
    child = os.fork()
    if not child:
        try:
            work()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def count_writes(stop_at: int | None = None, log: Path | None = None) -> None:
    """From now on count syncs and renames; die in front of number ``stop_at``; keep the count in ``log``."""
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


def change(photos: Path) -> None:
    """Give the gallery new photos, a changed one, a renamed one, and take one away."""
    save_photos(photos, 7, start=40)
    old = sorted(photos.glob("*.png"))
    save_photo(old[0], 60)
    os.utime(old[0], ns=(1, 1))
    old[1].rename(photos / "renamed.png")
    old[2].unlink()


def main(photos: Path, weights: Path, out: Path, count: int) -> None:
    torch.set_num_threads(1)
    matcher = model.load(weights, dtype=torch.float32)

    def run(index: Path, stop_at: int | None = None, log: Path | None = None) -> int:
        def work() -> None:
            count_writes(stop_at, log)
            # The clock stands still, or a slow machine would write its progress more often.
            build([photos], index, matcher, embedder="ret", batch=3, progress=Progress(clock=lambda: 0.0))

        return in_child(work)

    def disturb(undisturbed: Path, killed: Callable[[int], Path]) -> None:
        log = out / "writes"
        assert run(undisturbed, log=log) == 0
        writes = int(log.read_text())
        for number in range(count):
            index = killed(number)
            live = (index / "CURRENT").exists()
            point = writes * number // count
            assert run(index, stop_at=point) == signal.SIGKILL
            assert not live or verify(index) == []
            if number % 2:
                run(index, stop_at=(writes - point) // 2)
                assert not live or verify(index) == []
            assert run(index) == 0

    def built(number: int) -> Path:
        return Path(shutil.copytree(out / f"killed-{number}", out / f"killed-update-{number}"))

    disturb(out / "undisturbed", lambda number: out / f"killed-{number}")
    change(photos)
    disturb(Path(shutil.copytree(out / "undisturbed", out / "updated")), built)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
