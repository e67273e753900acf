"""An index in shards, indexes of whole clusters, joined by ``shards.json``, which is replaced after all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from sketch_search.indexer.errors import BadInvocation
from sketch_search.indexer.store import location
from sketch_search.indexer.store.files import sync_folder, write_atomically
from sketch_search.indexer.store.generation import Frozen, Number, keep_only, open_generation, read_document
from sketch_search.model.terminal import expand_home

#: The highest id: the code that merges the results of several shards keeps an id in 31 bits.
MAX_ID = 2**31 - 1
MAX_SHARDS = 10_000


class ShardEntry(Frozen):
    """A shard: its folder, the generation that belongs to this build, and the counts of that manifest."""

    folder: Annotated[str, Field(pattern=r"^shard-[0-9]{4}$")]
    generation: Annotated[str, Field(pattern=r"^g[0-9]{6,}$", max_length=100)]
    photos: Annotated[Number, Field(ge=1)]
    files: Number
    bad: Number
    clusters: Annotated[Number, Field(ge=1)]


class ShardsManifest(Frozen):
    """The manifest of an index in shards; its fields mean what those of ``generation.Manifest`` do."""

    version: Literal[2] = 2
    photo_sha256: str
    preprocessing_fingerprint: str
    clusters: Annotated[Number, Field(ge=1)]
    clusters_asked: Number | None
    next_id: Number
    created: datetime
    software: str
    shards: Annotated[tuple[ShardEntry, ...], Field(min_length=1, max_length=MAX_SHARDS)]


class ShardsFolder:
    """The paths inside the folder of an index in shards. Making the object touches nothing on disk."""

    def __init__(self, path: Path) -> None:
        self.path = expand_home(path).absolute()
        self.progress = self.path / "progress.json"

    def shard(self, number: int) -> location.IndexFolder:
        return location.IndexFolder(self.path / f"shard-{number:04d}")

    def slices(self, key: str) -> Path:
        return self.path / f"{location.SLICES}{key}"

    def manifest(self) -> ShardsManifest | None:
        """Reads the manifest of the last committed build; None if there is none. Raises IndexRefused."""
        path = self.path / location.SHARDS_FILE
        if not os.path.lexists(path):
            return None
        advice = f"it may be of another version of this program; delete {self.path}, and build it again with --ray"
        return read_document(ShardsManifest, path, advice)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Makes the folder and holds its lock. Raises IndexBusy; IndexUnwritable; BadInvocation for other things."""
        with location.refuse_if_unwritable(self.path):
            names = location.names_in(self.path)
            if names & {"CURRENT", "segments"}:
                raise BadInvocation(
                    f"{self.path} holds an ordinary index; name another folder for the shards with --index."
                )
            if location.SHARDS_FILE not in names and not any(name.startswith(location.SLICES) for name in names):
                location.check_ours(self.path, names - {".lock", "progress.json"})
        with location.hold_lock(self.path):
            yield

    def make_shard(self, number: int) -> location.IndexFolder:
        """Makes the folder of one shard. The caller holds the lock of all."""
        folder = self.shard(number)
        with location.refuse_if_unwritable(folder.path):
            folder.create()
            write_atomically(folder.path / location.SHARD_MARK, f"{number}\n".encode())
        return folder

    def commit(self, manifest: ShardsManifest) -> None:
        """Makes the shards of this build the current ones."""
        with location.refuse_if_unwritable(self.path):
            write_atomically(self.path / location.SHARDS_FILE, (manifest.model_dump_json(indent=1) + "\n").encode())
        self.settle(manifest)

    def settle(self, manifest: ShardsManifest) -> None:
        """Makes the committed generations current. A build may have been killed before it did so."""
        for number, shard in enumerate(manifest.shards):
            folder = self.shard(number)
            if folder.current() != shard.generation:
                folder.make_current(shard.generation)

    def clean(self, manifest: ShardsManifest | None, key: str | None) -> None:
        """Deletes generations neither of ``manifest`` nor of the one before, and the slices of other keys."""
        shards = () if manifest is None else manifest.shards
        kept = {shard.folder for shard in shards} | {f"{location.SLICES}{key}"}
        with location.refuse_if_unwritable(self.path):
            for entry in sorted(self.path.iterdir()):
                ours = entry.name.startswith(location.SLICES) or (entry / location.SHARD_MARK).is_file()
                if ours and entry.name not in kept and not entry.is_symlink():
                    shutil.rmtree(entry)
        for number, shard in enumerate(shards):
            folder = self.shard(number)
            keep_only(folder, open_generation(folder, shard.generation), building=set())
        sync_folder(self.path)


def shard_folders(path: Path) -> list[Path]:
    """Lists the folders to search: the shards of an index in shards, else ``path``. Raises IndexRefused."""
    manifest = ShardsFolder(path).manifest()
    return [path] if manifest is None else [path / shard.folder for shard in manifest.shards]
