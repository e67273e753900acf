"""What a build has to do: the files on disk against what the live index and the journal already know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from indexer.building.journal import FileRecord
from indexer.store import Catalog, Drift, FoundFile, Generation, Photo, Removals, Root, RowRef, Status

FileKey = tuple[int, str]


@dataclass(frozen=True)
class LiveState:
    """What the live generation lends to the next.

    Attributes:
        generation: None before the first build.
        photos: its catalog, roots renumbered to the next's; files of roots no longer named are left out.
        reusable: whether its rows were computed by the same checkpoint, preprocessing and embedder.
        rows: rows by content hash, with their clusters; empty unless reusable.
        members: the contents of every cluster in id order, those without a row left out.
        removals: what is not to be shown. drift: how well its clusters fit, where that is known.
        next_id: the first id never given.
    """

    generation: Generation | None
    photos: tuple[Photo, ...]
    reusable: bool
    rows: Mapping[str, tuple[RowRef, int]]
    members: Sequence[Sequence[str]]
    removals: Removals
    drift: Drift | None
    next_id: int

    @staticmethod
    def none(next_id: int = 1) -> LiveState:
        """The state before the first build."""
        return LiveState(None, (), False, {}, (), Removals(), None, next_id)

    @staticmethod
    def read(
        generation: Generation,
        roots: Sequence[Root],
        reusable: bool = True,
        damaged: frozenset[str] = frozenset(),
        next_id: int = 1,
    ) -> LiveState:
        """The state of a generation, for a next one over these roots.

        Args:
            damaged: segments that lend no rows. next_id: no new id may be below it.
        """
        places = {str(root.path): number for number, root in enumerate(roots)}
        numbers = [places.get(root.path) for root in generation.manifest.roots]
        with closing(Catalog(generation.path / "photos.sqlite")) as catalog:
            before, removals, drift = catalog.photos(), catalog.removals(), catalog.drift()
        photos: list[Photo] = []
        rows: dict[str, tuple[RowRef, int]] = {}
        shown: dict[str, int] = {}
        for photo in before:
            held = photo.segment is not None and photo.row is not None and photo.cluster is not None
            if reusable and held and photo.segment not in damaged:
                assert photo.segment is not None
                assert photo.row is not None
                assert photo.cluster is not None
                rows[photo.hash] = RowRef(photo.segment, photo.row), photo.cluster
                if photo.status == "indexed":
                    shown.setdefault(photo.hash, photo.id)
            if (number := numbers[photo.root]) is not None:
                photos.append(replace(photo, root=number))
        clusters = {name: number for name, (_, number) in rows.items()}
        members = members_by_cluster(shown, clusters, generation.manifest.counts.clusters)
        next_id = max(next_id, generation.manifest.next_id)
        moved = removals.renumbered(numbers)
        return LiveState(generation, tuple(photos), reusable, rows, members, moved, drift, next_id)


def members_by_cluster(order: Mapping[str, int], cluster_of: Mapping[str, int], count: int) -> list[list[str]]:
    """The contents of each of ``count`` clusters in id order; ``order`` are their ids."""
    members: list[list[str]] = [[] for _ in range(count)]
    for name in sorted(order, key=order.__getitem__):
        members[cluster_of[name]].append(name)
    return members


def shown_order(photos: Sequence[Photo]) -> dict[str, int]:
    """The contents that are shown, each with the lowest id among its files; ``photos`` by id."""
    order: dict[str, int] = {}
    for photo in photos:
        if photo.status == "indexed":
            order.setdefault(photo.hash, photo.id)
    return order


@dataclass(frozen=True)
class Plan:
    """The files of a build, split.

    Attributes:
        settled: what is known of files that need not be read. work: files to read, in path order.
    """

    settled: Mapping[FileKey, FileRecord]
    work: tuple[FoundFile, ...]

    @staticmethod
    def make(
        files: Sequence[FoundFile], live: LiveState, staged: Mapping[FileKey, FileRecord], known: set[str]
    ) -> Plan:
        """Settle every file whose size and time are what the live index or the journal saw.

        A file that failed for a reason that may be cured was recorded with size -1, which settles nothing.

        Args:
            staged: the journal's records. known: content hashes with a row, live or staged.
        """
        old = {(photo.root, photo.path): photo for photo in live.photos} if live.reusable else {}
        settled: dict[FileKey, FileRecord] = {}
        work: list[FoundFile] = []
        for file in files:
            key = (file.root, file.path)
            if file.reason is not None:
                settled[key] = FileRecord(*key, "", file.size, file.mtime, file.reason)
            elif record := _settle(file, old.get(key), staged.get(key), known):
                settled[key] = record
            else:
                work.append(file)
        return Plan(settled, tuple(work))


def _settle(file: FoundFile, old: Photo | None, staged: FileRecord | None, known: set[str]) -> FileRecord | None:
    seen = (file.size, file.mtime)
    if old is not None and (old.size, old.mtime) == seen:
        if old.status == "bad":
            return FileRecord(old.root, old.path, old.hash, old.size, old.mtime, old.reason)
        if old.hash in known:
            return FileRecord(old.root, old.path, old.hash, old.size, old.mtime, None)
    if staged is not None and (staged.size, staged.mtime) == seen and (staged.reason or staged.hash in known):
        return staged
    return None


def catalog_entries(files: Sequence[FoundFile], records: Mapping[FileKey, FileRecord], live: LiveState) -> list[Photo]:
    """The next catalog, by id, rows not filled in: every file keeps its id, new ones get ids in path order."""
    old = {(photo.root, photo.path): photo for photo in live.photos}
    next_id = live.next_id
    entries: list[Photo] = []
    for file in files:
        record = records[file.root, file.path]
        before = old.pop((file.root, file.path), None)
        if before is None:
            number, next_id = next_id, next_id + 1
        else:
            number = before.id
        status: Status = "indexed" if record.reason is None else "bad"
        content = (record.hash, record.size, record.mtime)
        entries.append(Photo(number, file.root, file.path, *content, status, record.reason))
    # A photo that comes back finds its id, and its row while its segment is there.
    entries += [replace(photo, status="gone", reason=None) for photo in old.values()]
    return sorted(entries, key=lambda photo: photo.id)
