"""The plan of a build: it takes ids, rows and clusters over from the live generation, and knows what it must read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import date

from indexer.building.folder_listing import FolderListing
from indexer.building.request import live_roots
from indexer.errors import BadInvocation
from indexer.store.catalog import GalleryFile, IndexedContent, Removals
from indexer.store.clusters import Drift
from indexer.store.generation import Generation
from indexer.store.roots import FileKey, Root, folders_around
from indexer.store.vectors import Places


@dataclass(frozen=True)
class LiveState:
    """The parts of the live generation that the next one takes over.

    Attributes:
        generation: the generation that the build goes on from; None before the first build, and for shards.
        files: its catalog. Roots have the numbers that they have in the next generation, and files of roots that leave
            the gallery are left out.
        reusable: whether the same checkpoint, preprocessing and embedder computed its rows.
        contents: where each content is in the generation, by content hash; empty unless ``reusable``.
        days: the days on which these photos were taken, by content hash; None for a photo that does not tell.
        members: the content hashes of each cluster's photos, in id order.
        drift: how well the clusters fit the photos. removals: what the user removed.
        next_id: the lowest id that no file has ever had.
        places: where the generation's vectors are. roots: the folders of its photos, as they were.
    """

    generation: Generation | None = None
    files: tuple[GalleryFile, ...] = ()
    reusable: bool = False
    contents: Mapping[str, IndexedContent] = field(default_factory=dict)
    days: Mapping[str, date | None] = field(default_factory=dict)
    members: Sequence[Sequence[str]] = ()
    drift: Drift | None = None
    removals: Removals = field(default_factory=Removals)
    next_id: int = 1
    places: Places | None = None
    roots: tuple[Root, ...] = ()

    def holds(self, entries: Sequence[GalleryFile], roots: Sequence[Root], removals: Removals) -> bool:
        """Returns True if a generation with these files, roots and removals would be the same as this one."""
        if (self.roots, self.removals, len(self.files)) != (tuple(roots), removals, len(entries)):
            return False
        pairs = zip(self.files, entries, strict=True)
        return all(replace(ours, indexed=None) == replace(theirs, indexed=None) for ours, theirs in pairs)

    def folders(self) -> set[FileKey]:
        """Returns the folders, with their roots, below which files were found by the last build."""
        return folders_around(file.key for file in self.files if not file.gone)

    def gone_in(self, entries: Iterable[GalleryFile]) -> int:
        """Counts the files that are there in this catalog and gone in the next one."""
        there = {file.id for file in self.files if not file.gone}
        return sum(file.gone and file.id in there for file in entries)

    @staticmethod
    def read(
        generation: Generation,
        roots: Sequence[Root],
        reusable: bool = True,
        damaged: frozenset[str] = frozenset(),
        next_id: int = 1,
    ) -> LiveState:
        """Reads the state of a generation.

        Args:
            roots: those of the next generation. damaged: segments whose rows cannot be used.
            next_id: an id below which no new one may be given.
        """
        manifest, new_numbers = generation.manifest, {str(root.folder): number for number, root in enumerate(roots)}
        numbers = [new_numbers.get(str(root.folder)) for root in live_roots(manifest)]
        with generation.open_catalog() as catalog:
            before, removals, drift = [*catalog.files()], catalog.removals(), catalog.drift()
        files: list[GalleryFile] = []
        contents: dict[str, IndexedContent] = {}
        days: dict[str, date | None] = {}
        for file in before:
            content, indexed = file.content_hash, file.indexed
            if reusable and content is not None and indexed is not None and indexed.row.segment not in damaged:
                contents[content], days[content] = indexed, file.taken
            if (number := numbers[file.root]) is not None:
                files.append(file if number == file.root else replace(file, root=number))
        ids = {content: number for content, number in shown_ids(before).items() if content in contents}
        cluster_of = {content: indexed.cluster for content, indexed in contents.items()}
        return LiveState(
            generation=generation,
            files=tuple(files),
            reusable=reusable,
            contents=contents,
            days=days,
            members=members_by_cluster(ids, cluster_of, manifest.counts.clusters),
            drift=drift,
            removals=removals.renumbered(numbers),
            next_id=max(next_id, manifest.next_id),
            places=Places.of_files(before, manifest.segment_rows, manifest.counts.clusters),
            roots=live_roots(manifest),
        )


def shown_ids(files: Sequence[GalleryFile]) -> dict[str, int]:
    """Returns the lowest id of each shown content's files, by content hash. ``files`` are in id order."""
    ids: dict[str, int] = {}
    for file in files:
        if (content := file.shown_content) is not None:
            ids.setdefault(content, file.id)
    return ids


def usable_ids(files: Sequence[GalleryFile], roots: Sequence[Root]) -> dict[str, int]:
    """Like ``shown_ids``, but raises BadInvocation if no photo is shown."""
    ids = shown_ids(files)
    if not ids:
        reason = next((file.reason for file in files if file.reason), "")
        folders = ", ".join(str(root.folder) for root in roots)
        raise BadInvocation(f"no file in {folders} can be used ({reason}); name a folder of photos.")
    return ids


def members_by_cluster(ids: Mapping[str, int], cluster_of: Mapping[str, int], count: int) -> list[list[str]]:
    """Returns the content hashes of each of ``count`` clusters, in id order."""
    members: list[list[str]] = [[] for _ in range(count)]
    for content in sorted(ids, key=ids.__getitem__):
        members[cluster_of[content]].append(content)
    return members


class Changes:
    """The files of a gallery: those that are known, and those that have to be read.

    Args:
        live: what is taken over. staged: the records of files that the build, or one that was stopped, has read.
        known: the content hashes that have a row. checksum: whether every file is to be read.

    Attributes:
        settled: how many files need not be read. bad: how many of them cannot be indexed. waiting: how many files were
            to be read, and were not.
    """

    def __init__(self, live: LiveState, staged: Mapping[FileKey, GalleryFile], known: Set[str], checksum: bool) -> None:
        self._live, self._known = live, known
        self._old = {file.key: file for file in live.files}
        # With ``checksum`` every file is read again. If its content is known, its row is still used.
        self._seen = [] if checksum else [self._old if live.reusable else {}, staged]
        self._records: dict[FileKey, GalleryFile | None] = {}
        self.settled = self.bad = self.waiting = 0

    def to_read(self, files: Iterable[GalleryFile]) -> Iterator[GalleryFile]:
        """Yields the files that have to be read, because their size or times have changed."""
        for file in files:
            record = file if file.reason is not None else self._settled(file)
            self._records[file.key] = record
            if record is None:
                yield file
            else:
                self.settled += 1
                self.bad += record.reason is not None

    def _settled(self, file: GalleryFile) -> GalleryFile | None:
        for records in self._seen:
            seen = records.get(file.key)
            # A record without a stamp settles nothing: its file failed for a reason that may no longer exist.
            if seen is None or seen.stamp is None or seen.stamp != file.stamp:
                continue
            if seen.reason is not None or seen.content_hash in self._known:
                return replace(seen, gone=False, indexed=None)
        return None

    def entries(self, read: Mapping[FileKey, GalleryFile], listing: FolderListing) -> list[GalleryFile]:
        """Makes the next generation's catalog, by id, without rows. Files keep ids; new ones get theirs in path order.

        The entries of a folder that could not be listed, of a file that waits for the next build, and of a file that a
        server did not give stay as they were. ``read`` has the records of the files that had to be read.
        """
        old, next_id = dict(self._old), self._live.next_id
        entries: list[GalleryFile] = []
        for key, record in self._records.items():
            if record is None and key not in read:
                self.waiting += 1
                continue
            now = read[key] if record is None else record
            if self._is_kept(now, listing):
                listing.note_unread(now)
                continue
            before = old.pop(key, None)
            number = next_id if before is None else before.id
            entries.append(now if now.id == number else replace(now, id=number))
            next_id += before is None
        # Files that are gone stay in the catalog. A file that comes back gets its id again, and also its row if that
        # still exists.
        for key, unseen in old.items():
            usable = unseen.status == "bad" or unseen.content_hash in self._live.contents
            kept = usable and (key in self._records or listing.may_hide(key))
            entries.append(unseen if kept else replace(unseen, gone=True, reason=None))
        return sorted(entries, key=lambda file: file.id)

    def _is_kept(self, now: GalleryFile, listing: FolderListing) -> bool:
        """Returns True if a server did not give a photo that the index has. The next build asks for it again."""
        before = self._old.get(now.key)
        unread = now.reason is not None and now.content_hash is None and listing.is_remote(now.root)
        return unread and before is not None and before.shown_content in self._live.contents
