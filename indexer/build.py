"""A build, first or repeated: walk, stage what is new, cluster, write the next generation, make it live."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indexer.catalog import Photo
from indexer.clusters import assign, cluster, default_clusters, read_centroids
from indexer.embedder import ChosenEmbedder, choose_embedder
from indexer.errors import BadInvocation, IndexRefused, IndexUnwritable
from indexer.gallery import BadFile, Gallery, Root, resolve_roots, shown_path, walk
from indexer.generation import Generation, open_generation
from indexer.journal import BuildSettings, FileRecord, Journal
from indexer.location import IndexFolder
from indexer.manifest import Manifest
from indexer.plan import FileKey, LiveState, Plan, catalog_entries
from indexer.progress import Progress
from indexer.segment import RowArrays, RowRef, Rows, open_segment
from indexer.staging import Stager
from indexer.writer import Clustering, GenerationWriter
from model import Matcher

DEFAULT_BATCH = 32


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Attributes:
        generation: the live generation's name. changed: False where nothing had to be written.
        photos, files, duplicates, clusters: as in the manifest's counts.
        encoded: photos the network saw in this run. gone: files that were there last time.
        bad: files and folders that could not be used, by shown path.
        embedder: what the clusters were made by. seconds: how long it took. index: where it is.
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
    embedder: str
    seconds: float
    index: Path


def build(
    folders: Sequence[Path],
    index: Path,
    matcher: Matcher,
    *,
    clusters: int | None = None,
    embedder: str = "auto",
    progress: Progress | None = None,
    batch: int = DEFAULT_BATCH,
) -> BuildReport:
    """Index all photos below ``folders``, or bring their index up to date. A killed build is gone on with.

    Args:
        clusters: how many; None for about sqrt(photos), or what the live index has. Another number clusters anew.
        embedder: "ret", "clip", "clip:...", or "auto": the live index's, else CLIP where its weights are on disk.
        batch: files between two commits of the journal.

    Raises:
        BadInvocation: it cannot be done as asked, EmbedderUnavailable and IndexUnwritable among it.
        IndexBusy: another build is writing this index. IndexRefused: the index there is newer or damaged.
    """
    started = time.monotonic()
    folder = IndexFolder(index)
    roots = resolve_roots(folders, folder.path)
    if clusters is not None and clusters < 1:
        raise BadInvocation("the number of clusters must be at least 1.")
    if batch < 1:
        raise BadInvocation("the batch must be at least 1.")
    if matcher.config.grid**2 > 256:
        raise BadInvocation("index format 1 holds patch grids up to 16 by 16; use a checkpoint with fewer patches.")
    progress = progress or Progress()
    try:
        folder.create()
        with folder.locked():
            progress.also_write(folder.progress)
            try:
                report = _Build(folder, roots, matcher, clusters, embedder, progress, batch).run(started)
                progress.finish("done")
            except BaseException:
                # What went wrong may well be that nothing can be written.
                with suppress(OSError):
                    progress.finish("stopped")
                raise
            return report
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        place = (isinstance(error, OSError) and error.filename) or folder.path
        raise IndexUnwritable(
            f"{place} cannot be written: {reason}; make room or give permission, and run the same build again: it "
            "goes on from here, and what was live still is."
        ) from error


class _Build:
    """One run; the steps in the order of ``run``."""

    def __init__(
        self,
        folder: IndexFolder,
        roots: tuple[Root, ...],
        matcher: Matcher,
        clusters: int | None,
        embedder: str,
        progress: Progress,
        batch: int,
    ) -> None:
        self.folder = folder
        self.matcher = matcher
        self.clusters = clusters
        self.progress = progress
        self.batch = batch
        name = folder.current()
        live = open_generation(folder, name) if name else None
        manifest = live.manifest if live else None
        same_network = manifest is not None and (
            (manifest.checkpoint_sha256, manifest.preprocessing_fingerprint)
            == (matcher.checkpoint_sha256, matcher.preprocessing_fingerprint)
        )
        told = embedder != "auto"
        if not told and manifest is not None and same_network:
            embedder = manifest.embedder.spec
        self.embedder: ChosenEmbedder = choose_embedder(embedder, matcher.device, download=told)
        reusable = same_network and manifest is not None and _same_embedder(manifest, self.embedder)
        # The same folders in another order are the same gallery; the live order stays, since readers may remap by it.
        if manifest is not None and {root.path for root in manifest.roots} == {str(root.path) for root in roots}:
            roots = tuple(Root(root.name, Path(root.path)) for root in manifest.roots)
        self.roots = roots
        self.live = LiveState.read(live, roots, reusable)
        self.recluster = (
            manifest is None
            or not reusable
            or tuple(root.path for root in manifest.roots) != tuple(str(root.path) for root in roots)
            or (clusters is not None and clusters not in (manifest.clusters_asked, manifest.counts.clusters))
        )
        self.settings = BuildSettings(
            matcher.checkpoint_sha256,
            matcher.preprocessing_fingerprint,
            str(matcher.dtype),
            (self.embedder.entry.name, self.embedder.entry.sha256),
            tuple(str(root.path) for root in roots),
        )

    def run(self, started: float) -> BuildReport:
        self.progress.start("reading")
        gallery = walk(self.roots, self.folder.path)
        if not gallery.files:
            raise BadInvocation(f"there are no image files in {self._places()}; name a folder of photos.")
        if self.recluster and self.clusters is not None and self.clusters > len(gallery.files):
            raise self._too_many_clusters(len(gallery.files))
        kept = _kept(self.folder, self.live.generation)
        self.folder.clean(*kept, building=self.settings.key)
        journal = Journal(self.folder.building(self.settings.key))
        try:
            records, encoded = self._stage(gallery, journal)
            entries = catalog_entries(gallery.files, records, self.live)
            generation = self._finish(entries, journal)
        finally:
            journal.close()
        self.folder.clean(*_kept(self.folder, generation), building=None)
        return self._report(generation, entries, gallery, encoded, started)

    def _stage(self, gallery: Gallery, journal: Journal) -> tuple[Mapping[FileKey, FileRecord], int]:
        known = set(self.live.rows) | set(journal.rows())
        plan = Plan.make(gallery.files, self.live, journal.records(), known)
        self.progress.start("encoding", len(plan.work))
        self.progress.advance(0, sum(record.reason is not None for record in plan.settled.values()))
        if not plan.work:
            return plan.settled, 0
        stager = Stager([root.path for root in self.roots], self.matcher, self.embedder.load(), journal, known)
        return {**plan.settled, **stager.stage(plan.work, self.batch, self.progress)}, stager.encoded

    def _finish(self, entries: list[Photo], journal: Journal) -> Generation:
        first: dict[str, int] = {}
        for photo in entries:
            if photo.status == "indexed":
                first.setdefault(photo.hash, photo.id)
        if not first:
            reason = next((photo.reason for photo in entries if photo.reason), "")
            raise BadInvocation(f"no file in {self._places()} can be used ({reason}); name a folder of photos.")
        refs = {name: RowRef("", row) for name, row in journal.rows().items() if name in first}
        refs |= {name: ref for name, (ref, _) in self.live.rows.items() if name in first}
        clustering = self._cluster(first, refs, rows := self._rows(journal))
        writer = GenerationWriter(self.folder, self.settings.key, self.matcher, self.embedder.entry, self.roots)
        self.progress.start("writing")
        return writer.write(entries, rows, refs, clustering, self.live, self.clusters)

    def _rows(self, journal: Journal) -> Rows:
        sources: dict[str, RowArrays] = {}
        if self.live.reusable and self.live.generation is not None:
            for segment in self.live.generation.manifest.segments:
                sources[segment.id] = open_segment(self.folder.segment(segment.id))
        if (staged := journal.arrays()) is not None:
            sources[""] = staged
        return Rows(sources)

    def _cluster(self, first: Mapping[str, int], refs: Mapping[str, RowRef], rows: Rows) -> Clustering:
        self.progress.start("clustering", 0)
        generation = self.live.generation
        if self.recluster or generation is None:
            count = default_clusters(len(first)) if self.clusters is None else self.clusters
            if count > len(first):
                raise self._too_many_clusters(len(first))
            # In id order: k-means starts from points chosen by their place.
            names = sorted(first, key=first.__getitem__)
            centroids, numbers = cluster(rows.gather([refs[name] for name in names], "embeddings"), count)
            return Clustering(centroids, dict(zip(names, numbers.tolist(), strict=True)), frozenset(names), fresh=True)
        centroids = read_centroids(generation.path / "clusters.faiss")
        numbers_of = {name: number for name, (_, number) in self.live.rows.items() if name in first}
        new = sorted(first.keys() - numbers_of.keys(), key=first.__getitem__)
        if new:
            nearest: np.ndarray[tuple[int], np.dtype[np.int64]] = assign(
                rows.gather([refs[name] for name in new], "embeddings"), centroids
            )
            numbers_of |= dict(zip(new, nearest.tolist(), strict=True))
        return Clustering(centroids, numbers_of, frozenset(new), fresh=False)

    def _report(
        self, generation: Generation, entries: list[Photo], gallery: Gallery, encoded: int, started: float
    ) -> BuildReport:
        names = generation.manifest.root_names
        bad = [BadFile(shown_path(names, file.root, file.path), file.reason) for file in entries if file.reason]
        before = {photo.id for photo in self.live.photos if photo.status != "gone"}
        counts = generation.manifest.counts
        return BuildReport(
            generation=generation.name,
            changed=self.live.generation is None or generation.name != self.live.generation.name,
            photos=counts.photos,
            files=counts.files,
            duplicates=counts.duplicates,
            clusters=counts.clusters,
            encoded=encoded,
            gone=sum(photo.status == "gone" and photo.id in before for photo in entries),
            bad=tuple(sorted(bad, key=lambda file: file.path)) + gallery.unlisted,
            embedder=self.embedder.entry.description,
            seconds=time.monotonic() - started,
            index=self.folder.path,
        )

    def _places(self) -> str:
        return ", ".join(str(root.path) for root in self.roots)

    def _too_many_clusters(self, photos: int) -> BadInvocation:
        return BadInvocation(f"{self.clusters} clusters are more than the {photos} photos; give --clusters fewer.")


def _same_embedder(manifest: Manifest, chosen: ChosenEmbedder) -> bool:
    old, new = manifest.embedder, chosen.entry
    return (old.kind, old.name, old.sha256) == (new.kind, new.name, new.sha256)


def _kept(folder: IndexFolder, live: Generation | None) -> tuple[set[str], set[str]]:
    """The generations and segments that must stay: the live ones, and the ones before for readers still on them."""
    if live is None:
        return set(), set()
    generations = {live.name}
    segments = {segment.id for segment in live.manifest.segments}
    if live.manifest.previous is not None:
        try:
            before = open_generation(folder, live.manifest.previous)
        except IndexRefused:
            return generations, segments
        generations.add(before.name)
        segments |= {segment.id for segment in before.manifest.segments}
    return generations, segments
