"""Compaction: all segments become one, without the rows that are no longer shown."""

from __future__ import annotations

from pathlib import Path

from indexer.building import LiveState, live_roots, shown_ids
from indexer.store import IndexFolder, live_generation, names_in_use, previous_generation
from indexer.upkeep.rewriting import UpkeepReport, write_next


def compact(index: Path) -> UpkeepReport:
    """Merge all segments into one, without the rows that are not shown. Searches give the same answers as before.

    The generation before is deleted at once, to free its space. Readers that have opened it can go on with it.

    Raises:
        IndexBusy: a build is writing this index. IndexUnwritable: its folder cannot be written.
        IndexRefused: there is no index, or it has another format or is damaged.
    """
    folder = IndexFolder(index)
    # Before the lock, which would make a folder where there is no index.
    live_generation(folder)
    with folder.writing():
        before = live_generation(folder)
        folder.clean(*names_in_use(before, previous_generation(folder, before)), building=None)
        roots = live_roots(before.manifest)
        live = LiveState.read(before, roots)
        ids = shown_ids(live.files)
        after = before
        if len(before.manifest.segments) > 1 or before.manifest.counts.rows > len(ids):
            after = write_next(folder, before, live, roots, live.files, live.removals, to_write=frozenset(ids))
        folder.clean(*names_in_use(after), building=None)
        return UpkeepReport.of(before, after, files=0)
