"""The end of a build: clusters the photos, and writes segment, centroids, catalog and manifest."""

import hashlib
import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sketch_search.indexer.building.database import BuildDatabase, ShownPhotos
from sketch_search.indexer.store import generation
from sketch_search.indexer.store.catalog import CATALOG_FILE, Removals, write_catalog
from sketch_search.indexer.store.files import sync_folder, write_atomically
from sketch_search.indexer.store.location import IndexFolder, generation_name, refuse_if_unwritable, segment_name
from sketch_search.indexer.store.rows import (
    BLOCK,
    BOXES_FILE,
    CLUSTERS_FILE,
    REGION_FILES,
    TOKEN_FILES,
    Centroids,
    GrowingRows,
    PhotoTable,
    SegmentReader,
    SegmentRows,
    are_unseen,
    nearest,
    write_array,
    write_rows,
)
from sketch_search.model.engine import Floats
from sketch_search.model.search.clusters import train_centroids, training_points
from sketch_search.model.terminal import installed_version

# Numbers of clusters, of 32 bits where there may be many.
ClusterNumbers = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Clustering:
    """Centroids (c, e) float32, clusters (p,) by photos' ids. as_before: whether the current clusters stay."""

    centroids: Floats
    clusters: ClusterNumbers
    as_before: bool = False


def make_clusters(rows: SegmentRows, reader: SegmentReader, count: int) -> Clustering:
    """Clusters rows, by id since k-means depends on the order, into at most ``count``; drops empty clusters."""
    centroids = train_centroids(reader.read_clustered(rows[training_points(len(rows), count)]), count)
    clusters = nearest(reader, rows, centroids)
    used = np.bincount(clusters, minlength=count) > 0
    return Clustering(centroids[used], (np.cumsum(used) - 1).astype(clusters.dtype)[clusters])


def join_clusters(photos: ShownPhotos, reader: SegmentReader, current: generation.Generation) -> Clustering:
    """Keeps the clusters of ``current``. Each new photo joins the nearest one."""
    centroids = current.read_kmeans_centroids()
    clusters, new = photos.clusters.copy(), photos.clusters < 0
    if new.any():
        clusters[new] = nearest(reader, photos.rows[new], centroids)
    return Clustering(centroids, clusters, as_before=True)


@dataclass(frozen=True)
class GenerationDraft:
    """The content of the next generation. to_write: (p,) whether a photo's tokens go into a new segment."""

    settings: generation.IndexSettings
    removals: Removals
    database: BuildDatabase
    photos: ShownPhotos
    reader: SegmentReader
    to_write: npt.NDArray[np.bool_]
    clustering: Clustering


class GenerationWriter:
    """Writes the next generation. next_id: the lowest new id. Rows that the draft's database staged stay."""

    def __init__(
        self, folder: IndexFolder, key: str, draft: GenerationDraft, current: generation.Generation | None, next_id: int
    ) -> None:
        self._folder, self._building = folder, folder.building(key)
        self._draft, self._clustering = draft, draft.clustering
        self._current, self._next_id = current, next_id
        self._number = folder.next_number()
        database, rows, to_write = draft.database, draft.photos.rows, draft.to_write
        # The new segment begins with the rows of the build's own, which is the first source; others are copied to it.
        self._staged, moved = database.staged, np.flatnonzero(to_write & (rows.sources > 0))
        self._new_segment = database.segment.name if self._staged else segment_name(self._number, key)
        if draft.settings.system == "two-stage" and to_write.all():
            # All rows are copied, one cluster after the other, so that a search reads each in one piece.
            self._staged, moved = 0, np.argsort(draft.clustering.clusters, kind="stable")
            self._new_segment = segment_name(self._number, hashlib.sha256(f"{key} clusters".encode()).hexdigest())
        parts = draft.photos.parts
        self._moved = rows[moved].with_parts(parts[moved])
        self._new = SegmentRows(
            rows.names,
            np.concatenate([np.zeros(self._staged, np.int64), self._moved.sources]),
            np.concatenate([np.arange(self._staged), self._moved.numbers]),
        )
        used = {rows.names[source] for source in np.unique(rows.sources[~to_write]).tolist()}
        before = current.manifest.segments if current else ()
        self._segments = [entry for entry in before if entry.id in used]
        self._old_segments = [entry.id for entry in self._segments]
        # Where each row is once the generation is written.
        numbers = np.array([self._old_segments.index(name) if name in used else -1 for name in rows.names], np.int64)
        segments, segment_rows = numbers[rows.sources], rows.numbers.astype(np.int64)
        segments[to_write] = len(self._old_segments)
        segment_rows[moved] = self._staged + np.cumsum(1 + parts[moved]) - 1 - parts[moved]
        self._segment_of, self._segment_rows = segments, segment_rows

    def write(self, *, make_current: bool = True) -> generation.Generation:
        """Writes the generation, and if ``make_current`` makes it the current one. Raises IndexUnwritable."""
        with refuse_if_unwritable(self._folder.path):
            self._building.mkdir(exist_ok=True)
            if self._draft.to_write.any():
                self._segments.append(self._write_segment())
            working = self._building / "generation"
            shutil.rmtree(working, ignore_errors=True)
            working.mkdir()
            write_array(working / CLUSTERS_FILE, self._clustering.centroids)
            self._centroids().write(working)
            self._write_photo_table(working)
            self._write_catalog(working)
            manifest = self._manifest(working)
            write_atomically(working / "manifest.json", (manifest.model_dump_json(indent=1) + "\n").encode())
            written = generation.Generation(self._folder, manifest)
            os.replace(working, written.path)
            sync_folder(self._folder.path)
            if make_current:
                self._folder.make_current(manifest.generation)
        return written

    def _manifest(self, working: Path) -> generation.Manifest:
        draft, statuses = self._draft, self._draft.database.counts()
        photos, files = len(draft.photos), statuses.get("indexed", 0)
        unseen = 0
        if draft.settings.detector is not None:
            unseen = int(are_unseen(np.load(working / BOXES_FILE, mmap_mode="r")[self._table.ids > 0]).sum())
        return generation.Manifest(
            **draft.settings.model_dump(),
            generation=generation_name(self._number),
            previous=self._current.name if self._current else None,
            counts=generation.Counts(
                photos=photos,
                files=files,
                duplicates=files - photos,
                bad=statuses.get("bad", 0),
                gone=statuses.get("gone", 0),
                clusters=len(self._clustering.centroids),
                rows=sum(entry.rows for entry in self._segments),
                parts=int(draft.photos.parts.sum()),
            ),
            next_id=max(self._next_id, draft.database.last_id() + 1),
            created=datetime.now(UTC).replace(microsecond=0),
            software=installed_version(),
            unseen=unseen,
            segments=tuple(self._segments),
            files=tuple(generation.FileEntry.of(path) for path in sorted(working.iterdir())),
        )

    def _write_segment(self) -> generation.SegmentEntry:
        folder, reader = self._folder.segments / self._new_segment, self._draft.reader
        folder.mkdir(exist_ok=True)
        files, growing = tuple[Path, ...](), GrowingRows(folder, self._building)
        # If only vectors are kept, a segment has no files.
        if names := [name for name in TOKEN_FILES + REGION_FILES if name in reader.names]:
            for start in range(0, len(self._moved), BLOCK):
                block = reader.take(self._moved[start : start + BLOCK], names)
                growing.append(block, self._staged + start, sync=False)
            files = growing.finish(names, len(self._new))
        sync_folder(self._folder.segments)
        return generation.SegmentEntry(
            id=self._new_segment, rows=len(self._new), files=tuple(map(generation.FileEntry.of, files))
        )

    def _write_photo_table(self, working: Path) -> None:
        clusters, sizes = self._clustering.clusters.astype(np.int64), [entry.rows for entry in self._segments]
        count = len(self._clustering.centroids)
        columns = self._draft.photos.ids, clusters, self._segment_of, self._segment_rows
        self._table = table = PhotoTable.of_photos(columns, self._draft.photos.parts, sizes, count)
        table.write(working)
        # The new segment has no vectors: they are still where the photos were encoded.
        names, new = (*self._old_segments, *self._new.names), table.segments == len(self._old_segments)
        sources, numbers = table.segments.astype(np.int32), table.segment_rows.astype(np.int32)
        fresh = self._new[table.segment_rows[new]]
        sources[new], numbers[new] = len(self._old_segments) + fresh.sources, fresh.numbers
        write_rows(
            working, self._draft.reader, SegmentRows(names, sources, numbers), ("vectors", "embeddings", "boxes")
        )

    def _write_catalog(self, working: Path) -> None:
        # A file that is gone keeps its row while its segment stays. After the clusters are made anew, its cluster is
        # unknown, and it is computed again if it comes back.
        names = [*self._old_segments, self._new_segment]
        segments = (names[number] for number in self._segment_of)
        clusters = map(int, self._clustering.clusters)
        photos = zip(map(int, self._draft.photos.ids), clusters, segments, map(int, self._segment_rows), strict=True)
        entries = self._draft.database.catalog(photos, self._old_segments if self._clustering.as_before else ())
        write_catalog(working / CATALOG_FILE, entries, self._draft.removals)

    def _centroids(self) -> Centroids:
        """Computes the centroids of changed clusters, and copies the others and those without photos."""
        draft, current, clusters = self._draft, self._current, self._clustering.clusters
        count, old, changed = len(self._clustering.centroids), None, set[int]()
        if self._clustering.as_before and current is not None:
            old = current.open_centroids()
            changed = draft.database.changed_clusters() | {*clusters[draft.photos.clusters < 0].tolist()}
        order = np.argsort(clusters, kind="stable")
        photos = np.split(order, np.searchsorted(clusters[order], np.arange(1, count)))
        return Centroids.join(
            [
                Centroids.of_photos(draft.reader, draft.photos.rows[rows])
                if old is None or (len(rows) and number in changed)
                else Centroids(*(array[number : number + 1] for array in old.arrays().values()))
                for number, rows in enumerate(photos)
            ]
        )
