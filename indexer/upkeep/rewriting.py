"""What removal and compaction share: a next generation made of the live one's rows and clusters, and its report."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from indexer.building import Clustering, Contents, GenerationWriter, Inversion, LiveState, shown_ids
from indexer.store import (
    GalleryFile,
    Generation,
    IndexFolder,
    Removals,
    Root,
    Rows,
    open_rows,
    read_centroids,
)

_KEY = "upkeep"


@dataclass(frozen=True)
class UpkeepReport:
    """What became of the index.

    Attributes:
        generation: the live generation's name. changed: False where nothing had to be written.
        photos: shown now. files: removed, with those that could not be indexed.
        segments: how many there are now. rows: in all of them. dropped: rows that were deleted.
        freed: bytes of the segments that were deleted, less those of the segments that were written.
    """

    generation: str
    changed: bool
    photos: int
    files: int
    segments: int
    rows: int
    dropped: int
    freed: int

    @staticmethod
    def of(before: Generation, after: Generation, files: int) -> UpkeepReport:
        """The report on a step from one generation to the next, or to the same one, that removed ``files`` files."""
        old, new = before.manifest, after.manifest
        size = {entry.id: sum(file.size for file in entry.files) for entry in (*old.segments, *new.segments)}
        return UpkeepReport(
            generation=after.name,
            changed=after.name != before.name,
            photos=new.counts.photos,
            files=files,
            segments=len(new.segments),
            rows=new.counts.rows,
            dropped=old.counts.rows - new.counts.rows,
            freed=sum(size[entry.id] for entry in old.segments) - sum(size[entry.id] for entry in new.segments),
        )


def write_next(
    folder: IndexFolder,
    before: Generation,
    live: LiveState,
    roots: Sequence[Root],
    entries: Sequence[GalleryFile],
    removals: Removals,
    to_write: frozenset[str] = frozenset(),
) -> Generation:
    """Write the generation that follows ``before``, of its rows and clusters; or return ``before`` if nothing changes.

    Args:
        live: its state. roots, entries, removals: what the next generation has.
        to_write: the content hashes whose rows go into a new segment.
    """
    rows = Rows({entry.id: open_rows(folder, before.manifest, entry) for entry in before.manifest.segments})
    ids = shown_ids(entries)
    refs = {content: live.contents[content].row for content in ids}
    cluster_of = {content: live.contents[content].cluster for content in ids}
    centroids = read_centroids(
        before.path / "clusters.faiss", before.manifest.counts.clusters, rows.take([]).embeddings.shape[1]
    )
    clustering = Clustering(centroids, cluster_of, to_write, before.manifest.clusters_asked, live.clusters)
    writer = GenerationWriter(folder, _KEY, before.manifest.origin, before.manifest.embedder, roots)
    written = writer.write(Contents(entries, removals, rows, refs, clustering, Inversion()), live)
    shutil.rmtree(folder.building(_KEY), ignore_errors=True)
    return written
