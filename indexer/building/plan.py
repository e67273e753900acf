"""Which files a build has to read: those that neither the live index nor the journal knows as they are now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

from indexer.building.folder_listing import FolderListing
from indexer.building.live_state import LiveState
from indexer.store import FileKey, GalleryFile


@dataclass(frozen=True)
class Plan:
    """The files of a gallery in two parts.

    Attributes:
        settled: files that need not be read, with what is known of them. work: files to read, in path order.
    """

    settled: Mapping[FileKey, GalleryFile]
    work: tuple[GalleryFile, ...]

    @staticmethod
    def make(
        files: Sequence[GalleryFile], live: LiveState, staged: Mapping[FileKey, GalleryFile], known: Set[str]
    ) -> Plan:
        """Settle every file whose size and times are those that the live index or the journal saw.

        Args:
            staged: the journal's records. known: the content hashes that have a row, in the live index or the journal.
        """
        old = {file.key: file for file in live.files} if live.reusable else {}
        settled: dict[FileKey, GalleryFile] = {}
        work: list[GalleryFile] = []
        for file in files:
            if file.reason is not None:
                settled[file.key] = file
            elif record := _settle(file, old.get(file.key), staged.get(file.key), known):
                settled[file.key] = record
            else:
                work.append(file)
        return Plan(settled, tuple(work))

    @staticmethod
    def everything(files: Sequence[GalleryFile]) -> Plan:
        """Settle only the files that are known to be of no use before they are opened."""
        hopeless = (file for file in files if file.reason is not None)
        settled = {file.key: file for file in hopeless}
        return Plan(settled, tuple(file for file in files if file.reason is None))


def _settle(
    file: GalleryFile, old: GalleryFile | None, staged: GalleryFile | None, known: Set[str]
) -> GalleryFile | None:
    # A record without a stamp settles nothing: its file failed for a reason that may have gone by now.
    for seen in (old, staged):
        if seen is None or seen.stamp is None or seen.stamp != file.stamp:
            continue
        if seen.reason is not None or seen.content_hash in known:
            return replace(seen, gone=False, indexed=None)
    return None


def catalog_entries(
    listing: FolderListing, records: Mapping[FileKey, GalleryFile], live: LiveState
) -> list[GalleryFile]:
    """The next generation's catalog, by id, without rows. Files keep their ids; new ones get ids in path order.

    What was known of a folder that could not be listed stays as it was.
    """
    old = {file.key: file for file in live.files}
    next_id = live.next_id
    entries: list[GalleryFile] = []
    for file in listing.files:
        before = old.pop(file.key, None)
        if before is None:
            number, next_id = next_id, next_id + 1
        else:
            number = before.id
        entries.append(replace(records[file.key], id=number))
    # Files that are gone stay in the catalog. One that comes back gets its id again, and its row while that is there.
    for key, unseen in old.items():
        usable = unseen.status == "bad" or unseen.content_hash in live.contents
        kept = usable and listing.may_hide(key)
        entries.append(unseen if kept else replace(unseen, gone=True, reason=None))
    return sorted(entries, key=lambda file: file.id)
