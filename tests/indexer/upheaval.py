"""python -m tests.indexer.upheaval PHOTOS INDEX WEIGHTS SEED COUNT: commands upon one index, while others do the same.

Photos come, change, move and go; builds and removals follow each other in forked processes, of
which every third is killed. A refusal in a sentence is an answer, and a traceback on standard error is none.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import torch

import model
from indexer import Request, build, read_summary, remove, verify
from model.errors import Refusal
from tests.indexer.galleries import save_photo, save_photos


def rearranged(photos: Path, random: Random) -> None:
    """Photos come, change, move and go. Some become damaged, or are dated before or after all dates that can be."""
    start = random.randrange(90)
    save_photos(photos, 5, start=start)
    found = sorted(photos.rglob("*.png"))
    changed, moved, gone, damaged = random.sample(found, 4)
    # Another of these programs may do the same.
    with suppress(FileNotFoundError):
        save_photo(changed, random.randrange(100))
        os.utime(changed, (random.choice((-(2**33), 0, 1, 2**33, 2**34)),) * 2)
        moved.rename(moved.with_name(f"moved {random.randrange(10)}.png"))
        damaged.write_bytes(damaged.read_bytes()[:200])
        gone.unlink()


def main(photos: Path, index: Path, weights: Path, seed: int, count: int) -> None:
    torch.set_num_threads(1)
    # A collection in a fork would touch, and so copy, every page of what is here.
    gc.freeze()
    matcher, random = model.load(weights, dtype="float32"), Random(seed)

    def some_photo() -> str:
        return random.choice(sorted(photos.rglob("*.png"))).relative_to(photos).as_posix()

    works: list[Callable[[], object]] = [
        lambda: build(index, Request([photos], embedder="ret", batch=3), matcher),
        lambda: build(index, Request(embedder="ret", recluster=True), matcher),
        lambda: remove([some_photo()], index),
        lambda: build(index, Request(), matcher),
        lambda: read_summary(index),
        lambda: print(*verify(index), file=sys.stderr, sep="\n", end=""),
    ]
    for _ in range(count):
        rearranged(photos, random)
        work, killed_after = random.choice(works), random.choice((0, 0, random.random()))
        child = os.fork()
        if not child:
            try:
                signal.setitimer(signal.ITIMER_REAL, killed_after)
                work()
            except (Refusal, OSError) as refusal:
                print(refusal)
            except BaseException:
                sys.excepthook(*sys.exc_info())
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
