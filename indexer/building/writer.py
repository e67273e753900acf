"""The end of a build: photos get their clusters, and segment, centroids, catalog and manifest are written."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from indexer.building.plan import LiveClusters, LiveState, members_by_cluster, shown_ids
from indexer.store import (
    PRECISION,
    Centroids,
    Counts,
    Drift,
    EmbedderEntry,
    FileEntry,
    GalleryFile,
    Generation,
    IndexedContent,
    IndexFolder,
    Manifest,
    Origin,
    Places,
    Removals,
    Root,
    RootEntry,
    RowRef,
    Rows,
    SegmentEntry,
    SegmentRow,
    StagedRow,
    assign,
    cluster,
    generation_name,
    generation_number,
    make_folder,
    mean_distance,
    read_centroids,
    software_version,
    sync_folder,
    told_if_unwritable,
    write_atomically,
    write_catalog,
    write_centroids,
    write_segment,
    write_vectors,
)


@dataclass(frozen=True)
class Clustering:
    """The cluster of every shown photo.

    Attributes:
        centroids: (c, e) float32. cluster_of: each photo's cluster, by content hash.
        to_write: the content hashes whose tokens go into a new segment.
        asked: how many clusters the user asked for; None for about sqrt(photos).
        kept: the live generation's clusters, where they stay; None where all clusters are new.
    """

    centroids: npt.NDArray[np.float32]
    cluster_of: Mapping[str, int]
    to_write: frozenset[str]
    asked: int | None
    kept: LiveClusters | None


def new_clusters(
    ids: Mapping[str, int], refs: Mapping[str, RowRef], rows: Rows, count: int, asked: int | None
) -> Clustering:
    """Clusters all photos by k-means.

    Args:
        ids: the shown photos' ids, refs: their rows; both by content hash. count: how many clusters, 1..photos.
    """
    # By id, because the points that k-means starts from depend on the order.
    contents = sorted(ids, key=ids.__getitem__)
    centroids, clusters = cluster(rows.clustered_by([refs[content] for content in contents]), count)
    cluster_of = dict(zip(contents, clusters.tolist(), strict=True))
    return Clustering(centroids, cluster_of, _staged(refs), asked, kept=None)


def joined_clusters(
    ids: Mapping[str, int],
    refs: Mapping[str, RowRef],
    rows: Rows,
    kept: LiveClusters,
    contents: Mapping[str, IndexedContent],
) -> Clustering:
    """Keep the live clusters; photos that are new join the nearest one.

    Args:
        ids: the shown photos' ids. refs, rows: their rows. kept: the live clusters. contents: where the live index has
            each content.
    """
    centroids = read_centroids(kept.folder / "clusters.faiss", len(kept.members), rows.clustered_by([]).shape[1])
    cluster_of = {content: contents[content].cluster for content in ids if content in contents}
    new = sorted(ids.keys() - cluster_of.keys(), key=ids.__getitem__)
    if new:
        nearest = assign(rows.clustered_by([refs[content] for content in new]), centroids)
        cluster_of |= dict(zip(new, nearest.tolist(), strict=True))
    return Clustering(centroids, cluster_of, _staged(refs), kept.asked, kept)


def _staged(refs: Mapping[str, RowRef]) -> frozenset[str]:
    """The contents whose rows are in no segment yet."""
    return frozenset(content for content, ref in refs.items() if isinstance(ref, StagedRow))


@dataclass(frozen=True)
class Contents:
    """The contents of the next generation.

    Attributes:
        entries: its catalog by id, without rows. removals: what the user removed.
        rows: where rows are read from. refs: the row of each shown photo, by content hash.
        clustering: the photos' clusters, and which rows go into a new segment.
    """

    entries: Sequence[GalleryFile]
    removals: Removals
    rows: Rows
    refs: Mapping[str, RowRef]
    clustering: Clustering


@dataclass(frozen=True)
class _Layout:
    """The place of each row and file in the next generation.

    Attributes:
        new_segment: the name of its new segment. to_write: the content hashes of that segment's rows, in order.
        indexed: the shown photos' rows, by content hash.
        files: the catalog, with rows. segments: the live generation's segments that stay.
    """

    new_segment: str
    to_write: Sequence[str]
    indexed: Mapping[str, IndexedContent]
    files: Sequence[GalleryFile]
    segments: Sequence[SegmentEntry]


class GenerationWriter:
    """Writes the generation that follows the live one. It works in a building folder until all is complete.

    Args:
        key: the building folder's. origin, embedder: what the rows and the clusters were made by. roots: the gallery's.
    """

    def __init__(
        self, folder: IndexFolder, key: str, origin: Origin, embedder: EmbedderEntry, roots: Sequence[Root]
    ) -> None:
        self._folder = folder
        self._building = folder.building(key)
        self._origin = origin
        self._embedder = embedder
        self._roots = tuple(RootEntry(name=root.name, path=str(root.path)) for root in roots)

    def write(
        self, contents: Contents, live: LiveState, *, even_if_unchanged: bool = False, make_live: bool = True
    ) -> Generation:
        """Write the next generation and make it live. Where nothing has changed the live one stays and is returned.

        Args:
            even_if_unchanged: write a generation all the same. make_live: whether readers are to open it from now on.

        Raises:
            IndexUnwritable: it cannot be written.
        """
        # Above all numbers that are there: a repair may go on from a generation that is not the newest.
        number = 1 + max((generation_number(name) for name in self._folder.generations()), default=0)
        ids = shown_ids(contents.entries)
        layout = _lay_out(contents, live, ids, number)
        if not even_if_unchanged and live.generation is not None and self._unchanged(layout, contents, live):
            return live.generation
        with told_if_unwritable(self._folder.path):
            make_folder(self._building, to_work_in=True)
            segments = list(layout.segments)
            if layout.to_write:
                refs = [contents.refs[content] for content in layout.to_write]
                segments.append(self._write_segment(layout.new_segment, contents.rows, refs))
            working = self._building / "generation"
            shutil.rmtree(working, ignore_errors=True)
            working.mkdir()
            write_catalog(working / "photos.sqlite", layout.files, contents.removals, _drift(contents, ids))
            write_centroids(working / "clusters.faiss", contents.clustering.centroids)
            _centroids(contents, ids).write(working)
            _write_vectors(working, contents, layout, segments)
            manifest = self._manifest(number, layout, segments, contents.clustering, live, working)
            write_atomically(working / "manifest.json", manifest.to_json().encode())
            final = self._folder.generation(manifest.generation)
            os.replace(working, final)
            sync_folder(self._folder.path)
            if make_live:
                self._folder.make_live(manifest.generation)
        return Generation(manifest.generation, final, manifest)

    def _unchanged(self, layout: _Layout, contents: Contents, live: LiveState) -> bool:
        """Whether the next generation would hold what the live one does."""
        if layout.to_write or live.generation is None or contents.clustering.kept is None:
            return False
        before = live.generation.manifest
        now = (layout.files, layout.segments, self._roots, contents.removals)
        return now == (list(live.files), list(before.segments), before.roots, live.removals)

    def _manifest(
        self,
        number: int,
        layout: _Layout,
        segments: Sequence[SegmentEntry],
        clustering: Clustering,
        live: LiveState,
        working: Path,
    ) -> Manifest:
        statuses = [file.status for file in layout.files]
        photos, files = len(clustering.cluster_of), statuses.count("indexed")
        return Manifest(
            generation=generation_name(number),
            previous=live.generation.name if live.generation else None,
            photo_sha256=self._origin.photo_sha256,
            preprocessing_fingerprint=self._origin.preprocessing_fingerprint,
            network=self._origin.network,
            width=self._origin.width,
            tokens=self._origin.tokens,
            cells=self._origin.cells,
            dtype=segments[-1].dtype,
            embedder=self._embedder,
            roots=self._roots,
            counts=Counts(
                photos=photos,
                files=files,
                duplicates=files - photos,
                bad=statuses.count("bad"),
                gone=statuses.count("gone"),
                clusters=len(clustering.centroids),
                rows=sum(entry.rows for entry in segments),
            ),
            clusters_asked=clustering.asked,
            next_id=max([live.next_id, *(file.id + 1 for file in layout.files)]),
            created=datetime.now(UTC).replace(microsecond=0),
            software=software_version(),
            segments=tuple(segments),
            files=tuple(FileEntry.of(path) for path in sorted(working.iterdir())),
        )

    def _write_segment(self, name: str, rows: Rows, refs: Sequence[RowRef]) -> SegmentEntry:
        working = self._building / "segment"
        shutil.rmtree(working, ignore_errors=True)
        write_segment(working, rows, refs)
        files = tuple(FileEntry.of(path) for path in sorted(working.iterdir()))
        final = self._folder.segment(name)
        # A killed build may have left a segment of this name. No generation has this number, so none uses it.
        shutil.rmtree(final, ignore_errors=True)
        os.replace(working, final)
        sync_folder(self._folder.segments)
        return SegmentEntry(id=name, rows=len(refs), dtype=PRECISION, files=files)


def _lay_out(contents: Contents, live: LiveState, ids: Mapping[str, int], number: int) -> _Layout:
    """Give every content its row in generation ``number``: in the new segment, or in a live one that stays."""
    clustering = contents.clustering
    to_write = sorted(clustering.to_write, key=ids.__getitem__)
    digest = hashlib.sha256("".join(to_write).encode()).hexdigest()[:8]
    new_segment = f"s{number:06d}-{digest}"
    rows = {content: SegmentRow(new_segment, row) for row, content in enumerate(to_write)}
    for content, ref in contents.refs.items():
        # All staged rows are among those to write.
        if content not in clustering.to_write and isinstance(ref, SegmentRow):
            rows[content] = ref
    used = {row.segment for row in rows.values()}
    indexed = {content: IndexedContent(row, clustering.cluster_of[content]) for content, row in rows.items()}
    # The new clusters say nothing of photos that are gone: those that come back are computed again.
    known = used if clustering.kept is not None else set()
    files = [_with_row(file, indexed, known) for file in contents.entries]
    before = live.generation.manifest.segments if live.generation else ()
    return _Layout(new_segment, to_write, indexed, files, [entry for entry in before if entry.id in used])


def _with_row(file: GalleryFile, indexed: Mapping[str, IndexedContent], used: Set[str]) -> GalleryFile:
    """The entry with its row.

    Args:
        indexed: the shown photos' rows, by content hash.
        used: the live segments that stay. A file that is gone keeps its row while its segment stays.
    """
    if (content := file.shown_content) is not None:
        return replace(file, indexed=indexed[content])
    if file.gone and file.indexed is not None and file.indexed.row.segment in used:
        return file
    return replace(file, indexed=None)


def _write_vectors(folder: Path, contents: Contents, layout: _Layout, segments: Sequence[SegmentEntry]) -> None:
    """Writes the places of all rows of a generation, and their vectors in that order."""
    sizes = [(entry.id, entry.rows) for entry in segments]
    places = Places.of_files(layout.files, sizes, len(contents.clustering.centroids))
    refs: list[RowRef] = []
    for segment, row in zip(places.segments.tolist(), places.rows.tolist(), strict=True):
        name = sizes[segment][0]
        is_new = name == layout.new_segment
        refs.append(contents.refs[layout.to_write[row]] if is_new else SegmentRow(name, row))
    places.write(folder)
    write_vectors(folder, contents.rows, refs)


def _centroids(contents: Contents, ids: Mapping[str, int]) -> Centroids:
    """Compute the centroids of clusters whose photos have changed, and copy the others from the live generation.

    A cluster that lost all of its photos keeps what it had.
    """
    clustering = contents.clustering
    count = len(clustering.centroids)
    members = members_by_cluster(ids, clustering.cluster_of, count)
    centroids = Centroids.empty(count, contents.rows)
    kept = clustering.kept
    old = None
    if kept is not None:
        _, width = centroids.ret.shape
        tokens = 1 if centroids.tokens is None else centroids.tokens.features.shape[1]
        old = Centroids.open(kept.folder, len(kept.members), width, tokens)
    for number, photos in enumerate(members):
        if kept is not None and old is not None and (not photos or photos == kept.members[number]):
            centroids.copy(number, old)
        else:
            centroids.compute(number, contents.rows, [contents.refs[content] for content in photos])
    return centroids


def _drift(contents: Contents, ids: Mapping[str, int]) -> Drift:
    clustering = contents.clustering
    photos = sorted(ids, key=ids.__getitem__)
    refs = [contents.refs[content] for content in photos]
    clusters = [clustering.cluster_of[content] for content in photos]
    now = mean_distance(contents.rows, refs, clusters, clustering.centroids)
    if clustering.kept is None:
        return Drift(len(photos), now, len(photos), now, automatic=clustering.asked is None)
    return replace(clustering.kept.drift, photos=len(photos), distance_now=now)
