"""What a build is to do, decided from what is asked for and what the index has, before any photo is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from indexer.building.journal import BuildSettings
from indexer.building.live_state import LiveState
from indexer.building.request import Request
from indexer.embedding import ChosenEmbedder, WantedEmbedder
from indexer.store import FORMAT_VERSION, Generation, Manifest, Origin, Removals, Root, locate


@dataclass(frozen=True)
class StartingPoint:
    """What a build goes on from.

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
    """What a build is to do.

    Attributes:
        start: what it goes on from. live: what it takes over from there.
        roots: the gallery's. removals: what is not to be indexed. batch: files between two commits of the journal.
        origin: the network that computes the rows. embedder: what the clusters are made by.
        recluster: whether all clusters are made anew. clusters: how many then; None for about sqrt(photos).
        checksum: whether every file is read.
        inverted_from: from so many photos on the index gets an inverted file.
    """

    start: StartingPoint
    live: LiveState
    roots: tuple[Root, ...]
    removals: Removals
    batch: int
    origin: Origin
    embedder: ChosenEmbedder
    recluster: bool
    clusters: int | None
    checksum: bool
    inverted_from: int

    @property
    def settings(self) -> BuildSettings:
        """What staged rows depend on."""
        return BuildSettings(
            self.origin.checkpoint_sha256,
            self.origin.preprocessing_fingerprint,
            (self.embedder.entry.name, self.embedder.entry.sha256),
            tuple(str(root.path) for root in self.roots),
            FORMAT_VERSION,
        )


def wanted_embedder(request: Request, manifest: Manifest | None, origin: Origin) -> WantedEmbedder:
    """The embedder that was asked for, else the index's own, else "auto".

    Args:
        manifest: of the generation to go on from; None where there is none. origin: the network of this build.
    """
    if request.embedder != "auto":
        # [Ret] has nothing to download.
        return WantedEmbedder(request.embedder, download=request.embedder != "ret")
    if manifest is not None and manifest.origin == origin:
        return WantedEmbedder(manifest.embedder.spec, download=False)
    return WantedEmbedder("auto", download=False)


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
    return Decision(
        start,
        live,
        roots,
        removals,
        request.batch,
        origin,
        embedder,
        recluster,
        clusters,
        request.checksum,
        request.inverted_from,
    )
