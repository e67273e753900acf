"""Builds of shards as the tests make them.

python -m tests.indexer.distributed.builds ADDRESS PHOTOS SHARDS WEIGHTS: one that kills itself once a slice is done.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Protocol

from indexer import Address
from indexer.building.builds import BuildReport
from indexer.building.progress import Progress
from indexer.building.request import Request
from indexer.distributed import Machines, build_shards

#: Files of a slice.
SLICE = 5


class BuildShards(Protocol):
    """Builds shards of a gallery as the tests do: by [Ret], in small slices."""

    def __call__(
        self,
        photos: Address,
        shards: Path,
        number: int | None = None,
        progress: Progress | None = None,
        clusters: int | None = None,
    ) -> BuildReport: ...


class KillAtFirstSlice(Progress):
    def advance(self, done: int = 1, bad: int = 0) -> None:
        super().advance(done, bad)
        if done:
            os.kill(os.getpid(), signal.SIGKILL)


def main(address: str, photos: str, shards: str, weights: str) -> None:
    from tests.indexer.distributed.workers import connection

    with connection(address):
        # Each worker of another driver has to load torch.
        machines = Machines(address, device="cpu", workers=1, weights=weights, slice_files=SLICE)
        build_shards(Path(shards), Request((Path(photos),), embedder="ret", shards=3), machines, KillAtFirstSlice())


if __name__ == "__main__":
    main(*sys.argv[1:])
