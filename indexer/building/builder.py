"""A build, first or repeated: walk, stage what is new, cluster, write the next generation, make it live."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from indexer.building.journal import BuildSettings, FileRecord, Journal
from indexer.building.plan import FileKey, LiveState, Plan, catalog_entries, shown_order
from indexer.building.progress import Progress
from indexer.building.request import DEFAULT_BATCH, Request
from indexer.building.staging import Stager
from indexer.building.writer import Clustering, Contents, GenerationWriter
from indexer.embedding import ChosenEmbedder, choose_embedder
from indexer.errors import BadInvocation
from indexer.store import (
    FORMAT_VERSION,
    MOST_CELLS,
    BadFile,
    Drift,
    Gallery,
    Generation,
    IndexFolder,
    Origin,
    Photo,
    RowArrays,
    RowRef,
    Rows,
    assign,
    cluster,
    default_clusters,
    kept,
    locate,
    open_generation,
    open_segment,
    previous,
    read_centroids,
    read_drift,
    shown_path,
    walk,
)
from model import Matcher


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Attributes:
        generation: the live generation's name. changed: False where nothing had to be written.
        photos, files, duplicates, clusters: as in the manifest's counts.
        encoded: photos the network saw in this run. gone: files that were there last time.
        bad: files and folders that could not be used, by shown path.
        embedder: what the clusters were made by. drift: how well they fit; None where that is not known.
        seconds: how long it took. index: where it is.
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
    drift: Drift | None
    seconds: float
    index: Path


def build(
    folders: Sequence[Path],
    index: Path,
    matcher: Matcher,
    *,
    clusters: int | None = None,
    embedder: str = "auto",
    recluster: bool = False,
    progress: Progress | None = None,
    batch: int = DEFAULT_BATCH,
) -> BuildReport:
    """Index all photos below ``folders``, or bring their index up to date. A killed build is gone on with.

    Args:
        folders: the whole gallery; none for the folders that the index has.
        clusters: how many; None for about sqrt(photos), or what the live index has. Another number clusters anew.
        embedder: "ret", "clip", "clip:...", or "auto": the live index's, else CLIP where its weights are on disk.
        recluster: make the clusters anew, even if their number stays; photos that are known are not computed again.
        batch: files between two commits of the journal.

    Raises:
        BadInvocation: it cannot be done as asked, EmbedderUnavailable and IndexUnwritable among it.
        IndexBusy: another build is writing this index. IndexRefused: the index there is newer or damaged.
    """
    return run(index, Request(tuple(folders), (), clusters, embedder, recluster, batch), matcher, progress)


def add(
    paths: Sequence[Path],
    index: Path,
    matcher: Matcher,
    *,
    progress: Progress | None = None,
    batch: int = DEFAULT_BATCH,
) -> BuildReport:
    """Extend the gallery by folders, and bring its index up to date.

    Files and folders inside the gallery are shown again, with all below them, where ``remove`` took them out.

    Raises:
        BadInvocation, IndexBusy, IndexRefused: as ``build`` does.
    """
    return run(index, Request((), tuple(paths), batch=batch), matcher, progress)


def run(index: Path, request: Request, matcher: Matcher, progress: Progress | None = None) -> BuildReport:
    """Do what is asked. Raises what ``build`` does."""
    folder = IndexFolder(index)
    request.check(folder.path)
    if matcher.config.grid**2 > MOST_CELLS:
        raise BadInvocation("an index holds patch grids up to 16 by 16; use a checkpoint with fewer patches.")
    with folder.writing():
        name = folder.current()
        base = Base(open_generation(folder, name)) if name is not None else Base(None)
        return Builder(folder, request, matcher, progress or Progress(), base).run()


@dataclass(frozen=True)
class Base:
    """What a build goes on from.

    Attributes:
        generation: the live one, or in a repair the newest that is sound enough; None for none.
        whole: False in a repair: a new generation is needed even if nothing has changed, and what is live is not
            touched before.
        damaged: segments whose rows are not to be used. next_id: no new id is below it.
    """

    generation: Generation | None
    whole: bool = True
    damaged: frozenset[str] = frozenset()
    next_id: int = 1


class Builder:
    """One build in a folder that is held; the steps in the order of ``run``."""

    def __init__(self, folder: IndexFolder, request: Request, matcher: Matcher, progress: Progress, base: Base) -> None:
        self._started = time.monotonic()
        self._base = base
        self._folder = folder
        self._request = request
        self._matcher = matcher
        self._origin = Origin.of(matcher)
        self._progress = progress
        manifest = base.generation.manifest if base.generation is not None else None
        self._roots = request.roots(folder.path, manifest)
        same_network = manifest is not None and manifest.exact and manifest.origin == self._origin
        told, embedder = request.embedder != "auto", request.embedder
        if not told and manifest is not None and same_network:
            embedder = manifest.embedder.spec
        self._embedder: ChosenEmbedder = choose_embedder(embedder, matcher.device, download=told)
        reusable = same_network and manifest is not None and manifest.embedder.same(self._embedder.entry)
        self._live = (
            LiveState.read(base.generation, self._roots, reusable, base.damaged, base.next_id)
            if base.generation is not None
            else LiveState.none(base.next_id)
        )
        self._removals = self._live.removals
        for path in request.added:
            if (place := locate(path, self._roots)) is not None:
                self._removals = self._removals.readmitting(*place)
        self._clusters = request.clusters
        if self._clusters is None and request.recluster and manifest is not None:
            self._clusters = manifest.clusters_asked
        self._recluster = (
            manifest is None
            or not reusable
            or request.recluster
            or request.clusters not in (None, manifest.clusters_asked, manifest.counts.clusters)
        )
        self._settings = BuildSettings(
            self._origin.checkpoint_sha256,
            self._origin.preprocessing_fingerprint,
            (self._embedder.entry.name, self._embedder.entry.sha256),
            tuple(str(root.path) for root in self._roots),
            FORMAT_VERSION,
        )

    def run(self) -> BuildReport:
        """Do it, and tell how far it is while it runs. What it raises leaves the live generation as it was."""
        self._progress.also_write(self._folder.progress)
        try:
            report = self._run()
            self._progress.finish("done")
        except BaseException:
            # What went wrong may well be that nothing can be written.
            with suppress(OSError):
                self._progress.finish("stopped")
            raise
        return report

    def _run(self) -> BuildReport:
        self._progress.start("reading")
        gallery = walk(self._roots, self._folder.path, self._removals)
        if not gallery.files:
            raise BadInvocation(f"there are no image files in {self._places()}; name a folder of photos.")
        if self._recluster and self._clusters is not None and self._clusters > len(gallery.files):
            raise self._too_many_clusters(len(gallery.files))
        if self._base.whole:
            before = self._live.generation
            self._folder.clean(*kept(before, previous(self._folder, before)), building={self._settings.key})
        journal = Journal(self._folder.building(self._settings.key))
        try:
            records, encoded = self._stage(gallery, journal)
            entries = catalog_entries(gallery.files, records, self._live)
            generation = self._finish(entries, journal)
        finally:
            journal.close()
        self._folder.clean(*kept(generation, previous(self._folder, generation)), building=set())
        return self._report(generation, entries, gallery, encoded)

    def _stage(self, gallery: Gallery, journal: Journal) -> tuple[Mapping[FileKey, FileRecord], int]:
        known = set(self._live.rows) | set(journal.rows())
        plan = Plan.make(gallery.files, self._live, journal.records(), known)
        self._progress.start("encoding", len(plan.work))
        self._progress.advance(0, sum(record.reason is not None for record in plan.settled.values()))
        if not plan.work:
            return plan.settled, 0
        stager = Stager([root.path for root in self._roots], self._matcher, self._embedder.load(), journal, known)
        return {**plan.settled, **stager.stage(plan.work, self._request.batch, self._progress)}, stager.encoded

    def _finish(self, entries: list[Photo], journal: Journal) -> Generation:
        first = shown_order(entries)
        if not first:
            reason = next((photo.reason for photo in entries if photo.reason), "")
            raise BadInvocation(f"no file in {self._places()} can be used ({reason}); name a folder of photos.")
        refs = {name: RowRef("", row) for name, row in journal.rows().items() if name in first}
        refs |= {name: ref for name, (ref, _) in self._live.rows.items() if name in first}
        rows = self._rows(journal)
        contents = Contents(entries, self._removals, rows, refs, self._cluster(first, refs, rows))
        key, entry = self._settings.key, self._embedder.entry
        self._progress.start("writing")
        writer = GenerationWriter(self._folder, key, self._origin, entry, self._roots)
        return writer.write(contents, self._live, anew=not self._base.whole)

    def _rows(self, journal: Journal) -> Rows:
        sources: dict[str, RowArrays] = {}
        if self._live.reusable and self._live.generation is not None:
            for segment in self._live.generation.manifest.segments:
                if segment.id not in self._base.damaged:
                    sources[segment.id] = open_segment(self._folder.segment(segment.id))
        if (staged := journal.arrays()) is not None:
            sources[""] = staged
        return Rows(sources)

    def _cluster(self, first: Mapping[str, int], refs: Mapping[str, RowRef], rows: Rows) -> Clustering:
        self._progress.start("clustering", 0)
        generation = self._live.generation
        if self._recluster or generation is None:
            count = default_clusters(len(first)) if self._clusters is None else self._clusters
            if count > len(first):
                raise self._too_many_clusters(len(first))
            # In id order: k-means starts from points chosen by their place.
            names = sorted(first, key=first.__getitem__)
            centroids, numbers = cluster(rows.gather([refs[name] for name in names], "embeddings"), count)
            return Clustering(
                centroids,
                dict(zip(names, numbers.tolist(), strict=True)),
                frozenset(names),
                fresh=True,
                asked=self._clusters,
            )
        centroids = read_centroids(generation.path / "clusters.faiss")
        numbers_of = {name: number for name, (_, number) in self._live.rows.items() if name in first}
        new = sorted(first.keys() - numbers_of.keys(), key=first.__getitem__)
        if new:
            nearest = assign(rows.gather([refs[name] for name in new], "embeddings"), centroids)
            numbers_of |= dict(zip(new, nearest.tolist(), strict=True))
        return Clustering(centroids, numbers_of, frozenset(new))

    def _report(self, generation: Generation, entries: list[Photo], gallery: Gallery, encoded: int) -> BuildReport:
        names = generation.manifest.root_names
        bad = [BadFile(shown_path(names, file.root, file.path), file.reason) for file in entries if file.reason]
        before = {photo.id for photo in self._live.photos if photo.status != "gone"}
        counts = generation.manifest.counts
        return BuildReport(
            generation=generation.name,
            changed=self._live.generation is None or generation.name != self._live.generation.name,
            photos=counts.photos,
            files=counts.files,
            duplicates=counts.duplicates,
            clusters=counts.clusters,
            encoded=encoded,
            gone=sum(photo.status == "gone" and photo.id in before for photo in entries),
            bad=tuple(sorted(bad, key=lambda file: file.path)) + gallery.unlisted,
            embedder=self._embedder.entry.description,
            drift=read_drift(generation.path / "photos.sqlite"),
            seconds=time.monotonic() - self._started,
            index=self._folder.path,
        )

    def _places(self) -> str:
        return ", ".join(str(root.path) for root in self._roots)

    def _too_many_clusters(self, photos: int) -> BadInvocation:
        return BadInvocation(f"{self._clusters} clusters are more than the {photos} photos; give --clusters fewer.")
