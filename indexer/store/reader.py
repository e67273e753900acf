"""Opens an index for searching, by memory maps, so that only what a search needs is read. Tells shards apart."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from cachetools import LRUCache
from pydantic import Field

from sketch_search.indexer.errors import BadInvocation, IndexRefused, PhotoUnavailable, UnknownPhoto
from sketch_search.indexer.store import location
from sketch_search.indexer.store.catalog import GalleryFile, PhotoFilter
from sketch_search.indexer.store.files import FileDigest, sync_folder, write_atomically
from sketch_search.indexer.store.folders import Address
from sketch_search.indexer.store.generation import (
    Frozen,
    Generation,
    NetworkIdentity,
    Number,
    current_generation,
    keep_only,
    open_generation,
    read_document,
)
from sketch_search.indexer.store.remote import Folder
from sketch_search.indexer.store.rows import REGION_FILES, TOKEN_FILES, SegmentReader, SegmentRows, are_unseen
from sketch_search.model import Matcher
from sketch_search.model.decoding import FileInParts
from sketch_search.model.engine import Numbers, Tokens
from sketch_search.model.engine.detector import KINDS, NO_KIND, no_boxes
from sketch_search.model.images import media_type
from sketch_search.model.search.clusters import Mask, Vectors

log = logging.getLogger("sketch_search")
# Files whose digests are kept, some hundred bytes each.
_DIGESTS = 4096
_BUILD = "run `sketch-search index build` to update the index"


@dataclass(frozen=True)
class PhotoEntry:
    """A photo: all files of one content.

    id: the lowest of its files. changed: of the first, in ns, if known. taken: by `Day.number`, if known.
    """

    id: int
    paths: tuple[str, ...]
    cluster: int
    content_hash: str
    size: int
    changed: int | None
    taken: float | None = None


class Index(AbstractContextManager["Index"]):
    """A generation opened for reading, which later builds do not change. Threads may share it.

    A row is of a photo, or of a part of one, in the order of ``PhotoTable``; its segment row has its tokens. ids: (r,)
    the photo's. parts, parts_of: (q,) the rows of parts, and of their photos; ``wholes``: (p,) those of all photos.
    cluster_sizes: (c,) shown photos. centroids: tokens (c, n, d) float16, or (c, 1, d) float32 if none are kept.
    vectors: [Ret] of the photos. embeddings: CLIP's vectors, or None.
    """

    def __init__(self, generation: Generation, roots: Sequence[location.Root]) -> None:
        manifest, counts = generation.manifest, generation.manifest.counts
        self.generation, self.manifest, self._roots = generation.name, manifest, tuple(roots)
        self.photo_count, self.cluster_count = counts.photos, counts.clusters
        self._segments = {segment.id: generation.open_segment(segment) for segment in manifest.segments}
        self._reader = SegmentReader(self._segments)
        table = generation.open_photo_table()
        shown = slice(0, counts.photos + counts.parts)
        self.ids, self.parts = np.abs(table.ids[shown]), np.flatnonzero(table.ids[shown] < 0)
        of_parts = self.wholes[np.isin(self.ids[self.wholes], self.ids[self.parts])] if counts.parts else self.parts
        of_parts = of_parts[np.argsort(self.ids[of_parts])]
        self.parts_of = of_parts[np.searchsorted(self.ids[of_parts], self.ids[self.parts])]
        names = tuple(manifest.segment_sizes)
        self._segment_rows = SegmentRows(names, table.segments[shown], table.segment_rows[shown])
        clusters = table.clusters[shown]
        sizes: Numbers = np.bincount(clusters, minlength=counts.clusters).astype(np.int64)
        self.cluster_parts: Numbers = np.bincount(clusters[self.parts], minlength=counts.clusters).astype(np.int64)
        self.cluster_sizes = sizes - self.cluster_parts
        opened, arrays = generation.open_centroids(), generation.open_vectors()
        self.vectors = Vectors(arrays["vectors"], sizes, np.array(opened.ret))
        self.embeddings: Vectors | None = None
        if (values := arrays.get("embeddings")) is not None:
            self.embeddings = Vectors(values, sizes, np.array(generation.read_kmeans_centroids()))
        self._boxes: npt.NDArray[np.uint8] | None = None
        if manifest.detector is not None:
            try:
                self._boxes = generation.open_boxes()
            except IndexRefused as error:
                log.warning("Photos are searched without boxes: %s", error)
        self.centroids = Tokens.of_ret(self.vectors.centroids)
        if opened.features is not None and opened.positions is not None:
            self.centroids = Tokens(np.array(opened.features), np.array(opened.positions, np.int64))
        self._lock = threading.Lock()
        self._digests: LRUCache[location.FileKey, FileDigest] = LRUCache(_DIGESTS)
        # The catalog is opened last, since it must be closed.
        self._catalog = generation.open_catalog()

    @cached_property
    def generation_id(self) -> str:
        """A name that is unique among the generations of all indexes, each of which numbers its own from 1."""
        return f"{self.generation}-{hashlib.sha256(self.manifest.model_dump_json().encode()).hexdigest()[:16]}"

    @property
    def wholes(self) -> Numbers:
        return np.delete(np.arange(len(self.ids)), self.parts)

    @property
    def boxes_kept(self) -> bool:
        """Whether the photos have boxes, as far as any were looked for."""
        return self._boxes is not None

    def photo_boxes(self, photo_rows: Numbers) -> npt.NDArray[np.uint8]:
        """Reads the boxes of these photos, (m, BOXES, 6), as ``Detector.detect`` finds them."""
        boxes = no_boxes(len(photo_rows))
        if self._boxes is not None:
            kept = self._boxes[photo_rows]
            seen = ~are_unseen(kept)
            boxes[seen] = kept[seen]
            # The file may be damaged.
            boxes[boxes[..., 0] >= len(KINDS), 0] = NO_KIND
        return boxes

    def photo_tokens(self, photo_rows: Numbers, *, scaled: bool = True) -> Tokens:
        """Reads only the tokens of the photos in these rows: features (m, n, d) float32; int8 if not ``scaled``."""
        if self.manifest.tokens == 1:
            return Tokens.of_ret(self.vectors.of(photo_rows))
        arrays = self._reader.take(self._segment_rows[photo_rows], TOKEN_FILES)
        return Tokens(arrays.features() if scaled else np.asarray(arrays.arrays["tokens"]), arrays.positions())

    def photo_regions(self, photo_rows: Numbers) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int8]]:
        """Reads regions, (m, g, r / 2) packed, and their colours as CIELAB, (m, g, 3). The index must keep them."""
        arrays = self._reader.take(self._segment_rows[photo_rows], REGION_FILES).arrays
        return np.asarray(arrays["regions"]), np.asarray(arrays["colours"])

    def reading_order(self, photo_rows: Numbers) -> Numbers:
        """Returns the indices (m,) of these rows in the order in which their tokens lie in the files."""
        return np.lexsort((self._segment_rows.numbers[photo_rows], self._segment_rows.sources[photo_rows]))

    def photo(self, photo: int) -> PhotoEntry:
        return self.photos([photo])[0]

    def photos(self, photos: Sequence[int]) -> tuple[PhotoEntry, ...]:
        """Finds the photos that files with these ids belong to, in their order. Raises UnknownPhoto."""
        if not len(photos):
            return ()
        sharing: dict[str, list[GalleryFile]] = {}
        for file in self._catalog.sharing(photos):
            sharing.setdefault(file.content_hash or "", []).append(file)
        entries = {file.id: same for same in sharing.values() for file in same}
        if unknown := [photo for photo in photos if photo not in entries]:
            raise UnknownPhoto(f"no photo has the id {unknown[0]}.")
        return tuple(self._entry(entries[photo]) for photo in photos)

    def _entry(self, files: Sequence[GalleryFile]) -> PhotoEntry:
        paths = tuple(location.shown_path(self.manifest.root_names, file.root, file.path) for file in files)
        first = files[0]
        changed = None if first.stamp is None else first.stamp.mtime
        size = 0 if first.stamp is None else first.stamp.size
        taken = next((file.taken for file in files if file.taken is not None), None)
        return PhotoEntry(first.id, paths, first.cluster or 0, first.content_hash or "", size, changed, taken)

    def photo_at(self, target: str) -> PhotoEntry:
        """Finds a photo by a path as results show it, or on disk. Raises BadInvocation if unknown or ambiguous."""
        key = location.key_meant(target, lambda key: self._catalog.at(*key) is not None, self._roots)
        number = None if key is None else self._catalog.at(*key)
        if number is None:
            raise BadInvocation(f"the index has no photo at {target}; name one as results show it.")
        return self.photo(number)

    def address_of(self, shown: str) -> str:
        """Returns the path or URL of a file from its path in results; it need not exist. Raises BadInvocation."""
        if (key := location.key_shown(self.manifest.root_names, shown)) is None:
            raise BadInvocation(f"the index has no photo at {shown}; name one as results show it.")
        return location.address_at(key, self._roots)

    def filter_mask(self, photo_filter: PhotoFilter) -> Mask:
        """Returns a mask (r,) by row: whether one of a photo's files passes a filter."""
        passing = self._catalog.segment_rows_of(photo_filter, self.manifest.root_names)
        starts = self._key_starts
        mask = np.isin(self._keys, np.fromiter((starts[segment] + row for segment, row in passing), np.int64))
        mask[self.parts] = mask[self.parts_of]
        return mask

    def newest(self, photo_filter: PhotoFilter) -> tuple[Numbers, Numbers]:
        """Finds the photos that pass a filter: their rows, newest first, and their days' ordinals."""
        passing, starts = self._catalog.newest(photo_filter, self.manifest.root_names), self._key_starts
        # One after the other, because tuples take ten times the memory.
        listed = np.fromiter(((starts[segment] + row, day) for segment, row, day in passing), np.dtype("i8, i8"))
        order = np.argsort(self._keys)
        return order[np.searchsorted(self._keys[order], listed["f0"])], listed["f1"].copy()

    def without_photos(self, folders: Sequence[str]) -> tuple[str, ...]:
        """Returns those of these folders, as results show them, below which there is no photo."""
        return self._catalog.without_photos(folders, self.manifest.root_names)

    @cached_property
    def _keys(self) -> Numbers:
        """A number of the segment row of each row, (r,)."""
        starts: Numbers = np.array([self._key_starts[name] for name in self._segment_rows.names], np.int64)
        keys: Numbers = starts[self._segment_rows.sources] + self._segment_rows.numbers
        return keys

    @cached_property
    def _key_starts(self) -> dict[str, int]:
        """The number of the first row of each segment."""
        sizes = self.manifest.segment_sizes
        return dict(zip(sizes, [0, *np.cumsum([*sizes.values()]).tolist()], strict=False))

    def open_photo(self, photo: int) -> FileInParts:
        """Opens the first file that has the indexed bytes. Raises UnknownPhoto; PhotoUnavailable, as reading it may."""
        size, _ = self.original(photo)
        waits = any(self._roots[file.root].folder.remote for file in self._files_of(photo))
        return FileInParts(size, partial(self.part_of_photo, photo, size), waits)

    def original(self, photo: int) -> tuple[int, str | None]:
        """Returns size and media type, None for no image, of a photo's file, checked once. Raises as ``open_photo``."""
        problem = ""
        for file in self._files_of(photo):
            folder = self._roots[file.root].folder
            try:
                known = self._digest(file, folder)
            except OSError as error:
                reason = error.strerror or error
                # A build does not help if a server does not answer or refuses access.
                later = folder.remote and not isinstance(error, FileNotFoundError)
                trouble = f"cannot be read now: {reason}" if later else f"can no longer be read ({reason}); {_BUILD}"
                problem = problem or trouble
                continue
            if known is not None and known.sha256 == file.content_hash:
                return known.stamp.size, media_type(known.start)
            # This is reported rather than a missing file, because then the advice helps.
            problem = f"has changed since it was indexed; {_BUILD}"
        raise PhotoUnavailable(f"photo {photo} {problem}.")

    def _digest(self, file: GalleryFile, folder: Folder) -> FileDigest | None:
        """Returns the digest of a file as it is now; None if its size has changed."""
        key, stamp = (file.root, file.path), folder.stamp(file.path)
        with self._lock:
            known = self._digests.get(key)
        if known is None or known.stamp != stamp:
            if file.stamp is not None and stamp.size != file.stamp.size:
                return None
            known = folder.digest(file.path)
            with self._lock:
                self._digests[key] = known
        return known

    def part_of_photo(self, photo: int, size: int, start: int, count: int) -> bytes:
        """Reads a part of a photo's first file with its bytes, which are ``size``. Raises as ``open_photo``."""
        for file in self._files_of(photo):
            folder = self._roots[file.root].folder
            with self._lock:
                known = self._digests.get((file.root, file.path))
            with suppress(OSError):
                known = known or self._digest(file, folder)
                if known is not None and known.sha256 == file.content_hash:
                    part = folder.read_part(file.path, count, start=start, size=size)
                    # It may have changed meanwhile; a server is not asked for each part.
                    if folder.remote or folder.stamp(file.path) == known.stamp:
                        return part
        raise PhotoUnavailable(f"photo {photo} has changed while being read.")

    def has_folders(self) -> bool:
        """Returns True if one of the folders of the photos is there; servers count as there."""
        return any(root.folder.remote or root.folder.is_there() for root in self._roots)

    def _files_of(self, photo: int) -> Sequence[GalleryFile]:
        if not (files := self._catalog.sharing([photo])):
            raise UnknownPhoto(f"no photo has the id {photo}.")
        return files

    def close(self) -> None:
        """Closes all files, even if something still refers to this index, such as the traceback of an error."""
        self._catalog.close()
        # A memory map ends with its last array. A running search in another thread keeps the arrays it needs.
        self._segments.clear()
        self._boxes = None
        for vectors in (self.vectors, self.embeddings):
            if vectors is not None:
                vectors.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def open_index(path: Path, matcher: Matcher, *, gallery_roots: Sequence[Address] | None = None) -> Index:
    """Opens the current generation. gallery_roots: addresses in order; None for the build's. Raises IndexRefused."""
    folder = location.IndexFolder(path)
    while True:
        generation = current_generation(folder)
        try:
            return _open(generation, matcher, gallery_roots)
        except IndexRefused:
            # The generation that was current a moment ago may have been deleted by builds that ended meanwhile.
            if folder.current() == generation.name:
                raise


def _open(generation: Generation, matcher: Matcher, gallery_roots: Sequence[Address] | None) -> Index:
    manifest = generation.manifest
    manifest.check_identity(generation.folder.path, NetworkIdentity.of(matcher))
    roots = manifest.roots
    if gallery_roots is not None:
        if len(gallery_roots) != len(roots):
            names = ", ".join(manifest.root_names)
            raise IndexRefused(
                f"the index has {len(roots)} gallery root(s) ({names}), but {len(gallery_roots)} were given; "
                "name a folder for each, in that order (SKETCH_SEARCH_GALLERY)."
            )
        paths = zip(manifest.root_names, map(location.folder_of, gallery_roots), strict=True)
        roots = tuple(location.Root(name=name, path=str(folder)) for name, folder in paths)
    return Index(generation, roots)


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
    """The manifest of an index in shards, beside those of the shards. next_id: the lowest that no file has ever had."""

    version: Literal[2] = 2
    clusters: Annotated[Number, Field(ge=1)]
    next_id: Number
    shards: Annotated[tuple[ShardEntry, ...], Field(min_length=1, max_length=MAX_SHARDS)]


class ShardsFolder(location.IndexFolder):
    """The paths inside the folder of an index in shards. Making the object touches nothing on disk."""

    def shard(self, number: int) -> location.IndexFolder:
        return location.IndexFolder(self.path / f"shard-{number:04d}")

    def manifest(self) -> ShardsManifest | None:
        """Reads the manifest of the last committed build; None if there is none. Raises IndexRefused."""
        path = self.path / location.SHARDS_FILE
        if not os.path.lexists(path):
            return None
        advice = f"it may be of another version of this program; delete {self.path}, and build it again with --ray"
        return read_document(ShardsManifest, path, advice)

    def create(self) -> None:
        """Makes the folder. Raises BadInvocation: it is a file, or contains other things than shards."""
        names = location.names_in(self.path)
        if names & {"CURRENT", "segments"}:
            raise BadInvocation(
                f"{self.path} holds an ordinary index; name another folder for the shards with --index."
            )
        if location.SHARDS_FILE not in names and not any(name.startswith(location.SLICES) for name in names):
            location.check_ours(self.path, names - {".lock", "progress.json"})

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

    def clean_shards(self, manifest: ShardsManifest | None, key: str | None) -> None:
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
