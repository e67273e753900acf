"""A build from what is asked for to its report: decide, list, encode what is new, cluster, write a generation."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from indexer.building.folder_listing import BadFile, FolderListing, Skipped, bad_files, list_gallery
from indexer.building.plan import LiveState, Plan, catalog_entries, check_clusters, usable_ids
from indexer.building.progress import Progress
from indexer.building.request import DEFAULT_BATCH, Request
from indexer.building.staging import Journal, Stager, build_key
from indexer.building.writer import Clustering, Contents, GenerationWriter, joined_clusters, new_clusters
from indexer.embedding import ChosenEmbedder, WantedEmbedder
from indexer.errors import BadInvocation
from indexer.store import (
    MOST_CELLS,
    Drift,
    FileKey,
    GalleryFile,
    Generation,
    IndexFolder,
    Manifest,
    Origin,
    Removals,
    Root,
    RowArrays,
    RowRef,
    Rows,
    StagedRow,
    default_clusters,
    live_generation_if_any,
    locate,
    names_in_use,
    open_rows,
    previous_generation,
    read_drift,
)
from model import Matcher


@dataclass(frozen=True)
class StartingPoint:
    """The state of an index that a build goes on from.

    Attributes:
        generation: the live one, or in a repair the newest one that can be used; None where there is none.
        repairing: a repair writes a generation even where nothing has changed, and deletes no other one before.
        damaged: segments whose rows cannot be used. next_id: no new id may be below this.
    """

    generation: Generation | None
    repairing: bool = False
    damaged: frozenset[str] = frozenset()
    next_id: int = 1

    @property
    def manifest(self) -> Manifest | None:
        """The generation's."""
        return self.generation.manifest if self.generation is not None else None


@dataclass(frozen=True)
class Decision:
    """One build, decided before any photo is read.

    Attributes:
        request: what is asked for. start: what it goes on from. live: what it takes over from there.
        roots: the gallery's. removals: what is not to be indexed.
        origin: the network that computes the rows. embedder: what the clusters are made by.
        recluster: whether all clusters are made anew. clusters: how many then; None for about sqrt(photos).
    """

    request: Request
    start: StartingPoint
    live: LiveState
    roots: tuple[Root, ...]
    removals: Removals
    origin: Origin
    embedder: ChosenEmbedder
    recluster: bool
    clusters: int | None


def wanted_embedder(request: Request, manifest: Manifest | None, origin: Origin) -> WantedEmbedder:
    """The embedder that was asked for, else the index's own, else "auto".

    Args:
        manifest: of the generation to go on from; None where there is none. origin: the network of this build.
    """
    if request.embedder != "auto":
        # [Ret] has nothing to download.
        return WantedEmbedder(request.embedder, download=request.embedder != "ret")
    if manifest is not None and replace(manifest.origin, tokens=origin.tokens) == origin:
        return WantedEmbedder(manifest.embedder.spec, download=False)
    return WantedEmbedder("auto", download=False)


def wanted_origin(request: Request, manifest: Manifest | None, matcher: Matcher) -> Origin:
    """The network of a build, with one token a photo where none but [Ret] is kept.

    manifest: of the generation to go on from; None where there is none.
    """
    origin = Origin.of(matcher)
    alone = replace(origin, tokens=1)
    keeps = request.tokens == "all" or (request.tokens == "auto" and (manifest is None or manifest.origin != alone))
    return origin if keeps else alone


def decide(request: Request, start: StartingPoint, origin: Origin, embedder: ChosenEmbedder, index: Path) -> Decision:
    """Decide what to do. The caller holds the index's lock, or what is decided may be out of date.

    Args:
        origin: the network. embedder: the one that ``wanted_embedder`` names. index: the index's folder.

    Raises:
        BadInvocation: as ``Request.roots`` does. IndexRefused: the catalog is damaged.
    """
    manifest = start.manifest
    roots = request.roots(index, manifest)
    if start.generation is None or manifest is None:
        live, recluster, clusters = LiveState.none(start.next_id), True, request.clusters
    else:
        reusable = manifest.origin == origin and manifest.embedder.same(embedder.entry)
        live = LiveState.read(start.generation, roots, reusable, start.damaged, start.next_id, request.moved)
        # The number that the clusters were asked for with, or that k-means made of it.
        same_number = request.clusters in (None, manifest.clusters_asked, manifest.counts.clusters)
        recluster = request.recluster or not reusable or not same_number
        clusters = request.clusters
        if clusters is None and request.recluster:
            clusters = manifest.clusters_asked
    removals = live.removals
    for path in request.added:
        if (location := locate(path, roots)) is not None:
            removals = removals.readmitting(*location)
    return Decision(request, start, live, roots, removals, origin, embedder, recluster, clusters)


@dataclass(frozen=True)
class BuildReport:
    """The outcome of a build.

    Attributes:
        generation: the live generation's name. changed: False where nothing had to be written.
        photos, files, duplicates, clusters: the manifest's counts.
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
        self._key = build_key(decision.origin, decision.embedder.entry, decision.roots)
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
        """Read what is new. Gives the record of every file, and how many photos were encoded."""
        known, staged = {**self._live.days, **journal.days()}, journal.records()
        if self._decision.request.checksum:
            # No file is known by its stamp. Rows that are known are used all the same, as contents are.
            plan = Plan.make(listing.files, LiveState.none(), {}, known.keys())
        else:
            plan = Plan.make(listing.files, self._live, staged, known.keys())
        self._progress.start("encoding", len(plan.work))
        self._progress.advance(0, sum(record.reason is not None for record in plan.settled.values()))
        if not plan.work:
            return plan.settled, 0
        roots = [root.path for root in self._decision.roots]
        keeps_tokens = self._decision.origin.tokens > 1
        stager = Stager(roots, self._matcher, self._decision.embedder.load(), journal, known, keeps_tokens)
        return {**plan.settled, **stager.stage(plan.work, self._decision.request.batch, self._progress)}, stager.encoded

    def _finish(self, entries: list[GalleryFile], journal: Journal) -> Generation:
        anew = self._decision.recluster or self._live.clusters is None
        ids = usable_ids(entries, self._decision.roots, self._decision.clusters if anew else None)
        refs: dict[str, RowRef] = {
            content: StagedRow(number) for content, number in journal.rows().items() if content in ids
        }
        refs |= {content: indexed.row for content, indexed in self._live.contents.items() if content in ids}
        rows = Rows(self._segments(), journal.arrays())
        clustering = self._cluster(ids, refs, rows)
        contents = Contents(entries, self._decision.removals, rows, refs, clustering)
        self._progress.start("writing")
        writer = GenerationWriter(
            self._folder, self._key, self._decision.origin, self._decision.embedder.entry, self._decision.roots
        )
        return writer.write(contents, self._live, even_if_unchanged=self._decision.start.repairing)

    def _segments(self) -> dict[str, RowArrays]:
        """The segments whose rows are used, by name."""
        live = self._live
        if not live.reusable or live.generation is None or live.places is None:
            return {}
        return open_rows(self._folder, live.generation.manifest, live.places, self._decision.start.damaged)

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


def build(
    folders: Sequence[Path],
    index: Path,
    matcher: Matcher,
    *,
    clusters: int | None = None,
    embedder: str = "auto",
    tokens: Literal["auto", "all", "none"] = "auto",
    recluster: bool = False,
    checksum: bool = False,
    progress: Progress | None = None,
    batch: int = DEFAULT_BATCH,
) -> BuildReport:
    """Index all photos below ``folders``, or bring their index up to date. A build that was killed is continued.

    Args:
        folders: all folders of the gallery; none for those that the index has.
        clusters: how many; None for about sqrt(photos), or for those that the live index has. Another number than the
            live index has makes the clusters anew.
        embedder: "ret", "clip", "clip:..."; or "auto": the live index's, else "ret".
        tokens: "none" for an index that is searched by vectors alone and a fraction as large; "all"; or "auto": as the
            live index, else "all".
        recluster: make the clusters anew even if their number stays. Photos that are known are not computed again.
        checksum: read every file, also those whose size and times are as they were. Only photos that have changed are
            computed.
        batch: files between two commits of the journal.

    Raises:
        BadInvocation: what is asked for cannot be done; EmbedderUnavailable and IndexUnwritable are such errors.
        IndexBusy: another build is writing this index.
        IndexRefused: the index that is there has another format or is damaged.
    """
    request = Request(
        folders=tuple(folders),
        clusters=clusters,
        embedder=embedder,
        tokens=tokens,
        recluster=recluster,
        checksum=checksum,
        batch=batch,
    )
    return run(index, request, matcher, progress)


def add(
    paths: Sequence[Path],
    index: Path,
    matcher: Matcher,
    *,
    progress: Progress | None = None,
    batch: int = DEFAULT_BATCH,
) -> BuildReport:
    """Add folders to the gallery, and bring its index up to date.

    A path inside the gallery is shown again with all below it, where ``remove`` took it out.

    Raises:
        BadInvocation, IndexBusy, IndexRefused: as ``build`` does.
    """
    return run(index, Request(added=tuple(paths), batch=batch), matcher, progress)


def run(index: Path, request: Request, matcher: Matcher, progress: Progress | None = None) -> BuildReport:
    """Do what is asked for. Raises what ``build`` does."""
    folder = IndexFolder(index)
    request.check(folder.path)
    if matcher.token_count("photo") > 1 and matcher.config.grid**2 > MOST_CELLS:
        raise BadInvocation("an index holds patch grids up to 16 by 16; use a checkpoint with fewer patches.")
    # Taken and released, so that an index that is busy or cannot be written is refused now and not after a download.
    with folder.writing():
        pass
    live = StartingPoint(live_generation_if_any(folder))
    wanted = wanted_embedder(request, live.manifest, wanted_origin(request, live.manifest, matcher))
    while True:
        # Without the lock, because it may download.
        embedder = wanted.find(matcher.device)
        with folder.writing():
            start = StartingPoint(live_generation_if_any(folder))
            origin = wanted_origin(request, start.manifest, matcher)
            wanted_now = wanted_embedder(request, start.manifest, origin)
            if wanted_now == wanted:
                decision = decide(request, start, origin, embedder, folder.path)
                return Builder(folder, decision, matcher, progress or Progress()).run()
        # Another build ended before the lock was taken, and the index has another embedder now.
        wanted = wanted_now
