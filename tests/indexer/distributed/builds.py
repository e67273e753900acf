"""Builds of shards as the tests make them."""

from pathlib import Path
from typing import Protocol

from indexer import Address
from indexer.building.builds import BuildReport
from indexer.building.progress import Progress

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
