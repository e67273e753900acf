"""The shards that are there, as the next build goes on from them, and where rows are read from: shards and slices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from indexer.building import LiveState
from indexer.store import (
    GalleryFile,
    Generation,
    IndexedContent,
    IndexFolder,
    Places,
    Root,
    RowArrays,
    SegmentRow,
    ShardsFolder,
    ShardsManifest,
    open_generation,
    open_rows,
    open_written,
)

# Each source has up to seven arrays mapped into memory, and Linux lets a process have 65,530 of them.
_MOST_OPEN = 8_000


@dataclass(frozen=True)
class LiveShards:
    """The shards that the last build has committed.

    Attributes:
        manifest: what joins them. generations: theirs, in order.
    """

    manifest: ShardsManifest
    generations: tuple[Generation, ...]

    @staticmethod
    def read(folder: ShardsFolder) -> LiveShards | None:
        """Those in a folder; None where there are none. Raises IndexRefused: they are damaged."""
        manifest = folder.manifest()
        if manifest is None:
            return None
        generations = (
            open_generation(folder.shard(number), shard.generation) for number, shard in enumerate(manifest.shards)
        )
        return LiveShards(manifest, tuple(generations))

    def state(self, roots: Sequence[Root]) -> LiveState:
        """All of them as the state of one index, but for the clusters, which are always made anew.

        The rows of its contents are in sources, see ``Sources``.

        Args:
            roots: those of the next build. Files of roots that leave the gallery are left out.
        """
        files: list[GalleryFile] = []
        contents: dict[str, IndexedContent] = {}
        states = [LiveState.read(generation, roots) for generation in self.generations]
        for shard, state in zip(self.manifest.shards, states, strict=True):
            place = f"{shard.folder}/{shard.generation}"
            files += state.files
            for content, indexed in state.contents.items():
                row = SegmentRow(f"{place}/{indexed.row.segment}", indexed.row.number)
                contents[content] = replace(indexed, row=row)
        files.sort(key=lambda file: file.id)
        next_id = max(self.manifest.next_id, *(state.next_id for state in states))
        return LiveState(None, tuple(files), True, contents, {}, None, states[0].removals, next_id)


class Sources(Mapping[str, RowArrays]):
    """The folders that rows are read from, by name: slices, and segments of shards. One is opened when it is needed.

    Args:
        shards: the folder of the shards. slices: the folder of the slices. names: "slice-000017-1f2e3d4c", or
            "shard-0003/g000002/s000001-0a1b2c3d", a segment of a generation of a shard.
    """

    def __init__(self, shards: Path, slices: Path, names: Iterable[str]) -> None:
        self._shards = shards
        self._slices = slices
        self._names = tuple(sorted(set(names)))
        self._open = lru_cache(maxsize=_MOST_OPEN)(self._open_now)

    def __getitem__(self, name: str) -> RowArrays:
        return self._open(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def _open_now(self, name: str) -> RowArrays:
        if "/" not in name:
            return open_written(self._slices / name / "rows")
        shard, generation, segment = name.split("/")
        folder = IndexFolder(self._shards / shard)
        manifest = open_generation(folder, generation).manifest
        others = [entry.id for entry in manifest.segments if entry.id != segment]
        places = Places.open(folder.generation(generation), manifest.counts.rows)
        return open_rows(folder, manifest, places, others)[segment]
