"""Which files a build has to read: those that neither the live index nor the journal knows as they are now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

from indexer.building.folder_listing import FolderListing, FoundFile
from indexer.building.journal import FileRecord
from indexer.building.live_state import LiveState
from indexer.store import CatalogFile, FileKey, FileStamp


@dataclass(frozen=True)
class Plan:
    """The files of a gallery in two parts.

    Attributes:
        settled: files that need not be read, with what is known of them. work: files to read, in path order.
    """

    settled: Mapping[FileKey, FileRecord]
    work: tuple[FoundFile, ...]

    @staticmethod
    def make(
        files: Sequence[FoundFile], live: LiveState, staged: Mapping[FileKey, FileRecord], known: Set[str]
    ) -> Plan:
        """Settle every file whose size and times are those that the live index or the journal saw.

        Args:
            staged: the journal's records. known: the content hashes that have a row, in the live index or the journal.
        """
        old = {(file.root, file.path): file for file in live.files} if live.reusable else {}
        settled: dict[FileKey, FileRecord] = {}
        work: list[FoundFile] = []
        for file in files:
            if file.reason is not None:
                settled[file.key] = FileRecord(file.root, file.path, None, file.stamp, file.reason)
            elif record := _settle(file, old.get(file.key), staged.get(file.key), known):
                settled[file.key] = record
            else:
                work.append(file)
        return Plan(settled, tuple(work))

    @staticmethod
    def everything(files: Sequence[FoundFile]) -> Plan:
        """Settle only the files that are known to be of no use before they are opened."""
        hopeless = (file for file in files if file.reason is not None)
        settled = {file.key: FileRecord(file.root, file.path, None, file.stamp, file.reason) for file in hopeless}
        return Plan(settled, tuple(file for file in files if file.reason is None))


def _settle(file: FoundFile, old: CatalogFile | None, staged: FileRecord | None, known: Set[str]) -> FileRecord | None:
    # A record without a stamp settles nothing: its file failed for a reason that may have gone by now.
    # The record gets the stamp of now: an index of format 2 learns the ctime that way. It and one of format 3 learn the
    # days on which photos were taken from a build that reads every file once, and computes nothing.
    if old is not None and _same(old.stamp, file.stamp):
        if old.status == "bad":
            return FileRecord(old.root, old.path, old.content_hash, file.stamp, old.reason)
        if old.content_hash in known and old.taken is not None:
            return FileRecord(old.root, old.path, old.content_hash, file.stamp, taken=old.taken)
    if staged is not None and _same(staged.stamp, file.stamp) and (staged.reason or staged.content_hash in known):
        return staged
    return None


def _same(known: FileStamp | None, found: FileStamp | None) -> bool:
    return known is not None and found is not None and known.may_be(found)


def catalog_entries(
    listing: FolderListing, records: Mapping[FileKey, FileRecord], live: LiveState
) -> list[CatalogFile]:
    """The next generation's catalog, by id, without rows. Files keep their ids; new ones get ids in path order.

    What was known of a folder that could not be listed stays as it was.
    """
    old = {(file.root, file.path): file for file in live.files}
    next_id = live.next_id
    entries: list[CatalogFile] = []
    for file in listing.files:
        record = records[file.key]
        before = old.pop(file.key, None)
        if before is None:
            number, next_id = next_id, next_id + 1
        else:
            number = before.id
        entries.append(
            CatalogFile(
                number,
                file.root,
                file.path,
                record.content_hash,
                record.stamp,
                status="indexed" if record.reason is None else "bad",
                reason=record.reason,
                taken=record.taken,
            )
        )
    # Files that are gone stay in the catalog. One that comes back gets its id again, and its row while that is there.
    for key, unseen in old.items():
        usable = unseen.status == "bad" or unseen.content_hash in live.contents
        kept = usable and listing.may_hide(key)
        entries.append(unseen if kept else replace(unseen, status="gone", reason=None))
    return sorted(entries, key=lambda file: file.id)
