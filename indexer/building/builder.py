"""The steps of a build: list the files, read and encode what is new, cluster, write the next generation."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from indexer.building.clustering import Clustering, joined_clusters, new_clusters
from indexer.building.decision import Decision
from indexer.building.folder_listing import BadFile, FolderListing, Skipped, bad_files, list_gallery
from indexer.building.journal import Journal
from indexer.building.live_state import check_clusters, usable_ids
from indexer.building.lookup import Inversion
from indexer.building.plan import Plan, catalog_entries
from indexer.building.progress import Progress
from indexer.building.staging import Stager
from indexer.building.writer import Contents, GenerationWriter
from indexer.store import (
    Drift,
    FileKey,
    GalleryFile,
    Generation,
    IndexFolder,
    RowArrays,
    RowRef,
    Rows,
    StagedRow,
    default_clusters,
    names_in_use,
    open_rows,
    previous_generation,
    read_drift,
)
from model import Matcher


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Attributes:
        generation: the live generation's name. changed: False where nothing had to be written.
        photos, files, duplicates, clusters: as in the manifest's counts.
        encoded: photos that the network encoded in this run. gone: files that were there at the last build.
        bad: files that could not be used, by the paths that users see.
        unlisted: folders that could not be read. What was known of them stays, as far as this network computed it.
        skipped: what was passed over, because it is no image.
        embedder: what the clusters were made by. drift: how well they fit.
        seconds: how long it took, without the time to find the embedder. index: the index's folder.
    """

    generation: str
    changed: bool
    photos: int
    files: int
    duplicates: int
    clusters: int
    encoded: int
    gone: int
    bad: tuple[BadFile, ...]
    unlisted: tuple[BadFile, ...]
    skipped: Skipped
    embedder: str
    drift: Drift
    seconds: float
    index: Path


class Builder:
    """Does what was decided, in a folder whose lock the caller holds."""

    def __init__(self, folder: IndexFolder, decision: Decision, matcher: Matcher, progress: Progress) -> None:
        self._folder = folder
        self._decision = decision
        self._live = decision.live
        self._key = decision.settings.key
        self._matcher = matcher
        self._progress = progress

    def run(self) -> BuildReport:
        """Do it, and keep the progress up to date. An error leaves the live generation as it was."""
        with self._progress.of_build(self._folder.progress):
            return self._run()

    def _run(self) -> BuildReport:
        started = time.monotonic()
        self._progress.start("reading")
        listing = list_gallery(self._decision.roots, self._folder.path, self._decision.removals, self._live.files)
        if self._decision.recluster and not listing.unlisted:
            check_clusters(self._decision.clusters, len(listing.files))
        if not self._decision.start.repairing:
            before = self._live.generation
            self._folder.clean(*names_in_use(before, previous_generation(self._folder, before)), building={self._key})
        journal = Journal(self._folder.building(self._key))
        try:
            records, encoded = self._stage(listing, journal)
            entries = catalog_entries(listing, records, self._live)
            generation = self._finish(entries, journal)
        finally:
            journal.close()
        self._folder.clean(*names_in_use(generation, previous_generation(self._folder, generation)), building=set())
        return self._report(generation, entries, listing, encoded, time.monotonic() - started)

    def _stage(self, listing: FolderListing, journal: Journal) -> tuple[Mapping[FileKey, GalleryFile], int]:
        """What became of every file, and how many photos were encoded."""
        known, staged = {**self._live.days, **journal.days()}, journal.records()
        if self._decision.checksum:
            # Rows that are known are used all the same: they are found by the contents.
            plan = Plan.everything(listing.files)
        else:
            plan = Plan.make(listing.files, self._live, staged, known.keys())
        self._progress.start("encoding", len(plan.work))
        self._progress.advance(0, sum(record.reason is not None for record in plan.settled.values()))
        if not plan.work:
            return plan.settled, 0
        roots = [root.path for root in self._decision.roots]
        stager = Stager(roots, self._matcher, self._decision.embedder.load(), journal, known)
        return {**plan.settled, **stager.stage(plan.work, self._decision.batch, self._progress)}, stager.encoded

    def _finish(self, entries: list[GalleryFile], journal: Journal) -> Generation:
        anew = self._decision.recluster or self._live.clusters is None
        ids = usable_ids(entries, self._decision.roots, self._decision.clusters if anew else None)
        refs: dict[str, RowRef] = {
            content: StagedRow(number) for content, number in journal.rows().items() if content in ids
        }
        refs |= {content: indexed.row for content, indexed in self._live.contents.items() if content in ids}
        rows = Rows(self._segments(), journal.arrays())
        inversion = Inversion(self._decision.inverted_from, anew=self._decision.start.repairing)
        clustering = self._cluster(ids, refs, rows)
        contents = Contents(entries, self._decision.removals, rows, refs, clustering, inversion)
        self._progress.start("writing")
        writer = GenerationWriter(
            self._folder, self._key, self._decision.origin, self._decision.embedder.entry, self._decision.roots
        )
        return writer.write(contents, self._live, even_if_unchanged=self._decision.start.repairing)

    def _segments(self) -> dict[str, RowArrays]:
        """The segments whose rows are used, by name."""
        if not self._live.reusable or self._live.generation is None:
            return {}
        manifest = self._live.generation.manifest
        return {
            segment.id: open_rows(self._folder, manifest, segment)
            for segment in manifest.segments
            if segment.id not in self._decision.start.damaged
        }

    def _cluster(self, ids: Mapping[str, int], refs: Mapping[str, RowRef], rows: Rows) -> Clustering:
        self._progress.start("clustering", 0)
        live = self._live
        if live.clusters is not None and not self._decision.recluster:
            return joined_clusters(ids, refs, rows, live.clusters, live.contents)
        asked = self._decision.clusters
        return new_clusters(ids, refs, rows, default_clusters(len(ids)) if asked is None else asked, asked)

    def _report(
        self,
        generation: Generation,
        entries: list[GalleryFile],
        listing: FolderListing,
        encoded: int,
        seconds: float,
    ) -> BuildReport:
        counts = generation.manifest.counts
        return BuildReport(
            generation=generation.name,
            changed=self._live.generation is None or generation.name != self._live.generation.name,
            photos=counts.photos,
            files=counts.files,
            duplicates=counts.duplicates,
            clusters=counts.clusters,
            encoded=encoded,
            gone=self._live.gone_in(entries),
            bad=bad_files(entries, generation.manifest.root_names),
            unlisted=listing.unlisted,
            skipped=listing.skipped,
            embedder=self._decision.embedder.entry.description,
            drift=read_drift(generation.path / "photos.sqlite"),
            seconds=seconds,
            index=self._folder.path,
        )
