"""The end of a build: photos get their clusters, and segment, centroids, catalog and manifest are written."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from indexer.building.plan import LiveState, members_by_cluster, shown_ids
from indexer.store.catalog import CATALOG_FILE, GalleryFile, IndexedContent, Removals, write_catalog
from indexer.store.clusters import CLUSTERS_FILE, Centroids, Drift, mean_distance, trained, training_points
from indexer.store.files import sync_folder, write_array, write_atomically
from indexer.store.generation import (
    Counts,
    EmbedderEntry,
    FileEntry,
    Generation,
    Manifest,
    Origin,
    RootEntry,
    SegmentEntry,
)
from indexer.store.location import IndexFolder, generation_name, generation_number, make_folder, refuse_if_unwritable
from indexer.store.roots import Root
from indexer.store.rows import Rows, SegmentRow, write_segment
from indexer.store.vectors import Places, write_vectors
from model.terminal import installed_version

# Gives the number of the nearest centroid (c, e) for each row, (m,).
Nearest = Callable[[Sequence[SegmentRow], npt.NDArray[np.float32]], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Clustering:
    """The cluster of every shown photo.

    Attributes:
        centroids: (c, e) float32. cluster_of: each photo's cluster, by content hash.
        asked: how many clusters the user asked for; None for about sqrt(photos).
        kept: whether the live generation's clusters stay, in their order; if not, all clusters are new.
    """

    centroids: npt.NDArray[np.float32]
    cluster_of: Mapping[str, int]
    asked: int | None
    kept: bool = False


def new_clusters(
    ids: Mapping[str, int],
    refs: Mapping[str, SegmentRow],
    rows: Rows,
    count: int,
    asked: int | None,
    nearest: Nearest,
) -> Clustering:
    """Clusters all photos by k-means. Clusters that no photo is in are dropped.

    ``ids`` and ``refs`` are the shown photos' ids and rows, by content hash; ``count`` is from 1 to as many.
    """
    # The photos are ordered by id, because the points that k-means starts from depend on the order.
    contents = sorted(ids, key=ids.__getitem__)
    ordered = [refs[content] for content in contents]
    sample = [ordered[number] for number in training_points(len(ordered), count).tolist()]
    centroids = trained(rows.clustered_by(sample), count)
    used, clusters = np.unique(nearest(ordered, centroids), return_inverse=True)
    return Clustering(centroids[used], dict(zip(contents, clusters.tolist(), strict=True)), asked)


def joined_clusters(
    ids: Mapping[str, int],
    refs: Mapping[str, SegmentRow],
    rows: Rows,
    live: Generation,
    contents: Mapping[str, IndexedContent],
    nearest: Nearest,
) -> Clustering:
    """Keeps the clusters of ``live``, which has ``contents``. Each new photo joins the nearest one."""
    centroids = live.read_means(rows.clustered_by([]).shape[1])
    cluster_of = {content: contents[content].cluster for content in ids if content in contents}
    new = sorted(ids.keys() - cluster_of.keys(), key=ids.__getitem__)
    if new:
        found = nearest([refs[content] for content in new], centroids)
        cluster_of |= dict(zip(new, found.tolist(), strict=True))
    return Clustering(centroids, cluster_of, live.manifest.clusters_asked, kept=True)


@dataclass(frozen=True)
class Contents:
    """Describes what the next generation is to hold.

    Attributes:
        entries: the catalog by id, without rows.
        rows: where rows are read from. refs: the row of each shown photo, by content hash.
        to_write: the content hashes whose tokens go into a new segment.
    """

    origin: Origin
    embedder: EmbedderEntry
    roots: Sequence[Root]
    entries: Sequence[GalleryFile]
    removals: Removals
    rows: Rows
    refs: Mapping[str, SegmentRow]
    to_write: Set[str]
    clustering: Clustering


class GenerationWriter:
    """Writes the generation that follows the live one. It works in the building folder of ``key`` until it is done."""

    def __init__(self, folder: IndexFolder, key: str, contents: Contents, live: LiveState) -> None:
        self._folder, self._building = folder, folder.building(key)
        self._contents, self._clustering, self._live = contents, contents.clustering, live
        # The number is above all existing ones, because a build may go on from a generation that is not the newest.
        self._number = 1 + max((generation_number(name) for name in folder.generations()), default=0)
        self._ids = shown_ids(contents.entries)
        self._to_write = sorted(contents.to_write, key=self._ids.__getitem__)
        digest = hashlib.sha256("".join(self._to_write).encode()).hexdigest()[:8]
        self._new_segment = f"s{self._number:06d}-{digest}"
        written = {content: SegmentRow(self._new_segment, row) for row, content in enumerate(self._to_write)}
        self._indexed = {
            content: IndexedContent(row, self._clustering.cluster_of[content])
            for content, row in {**contents.refs, **written}.items()
        }
        self._used = {indexed.row.segment for indexed in self._indexed.values()}
        self._files = [self._with_row(file) for file in contents.entries]
        before = live.generation.manifest.segments if live.generation else ()
        self._segments = [entry for entry in before if entry.id in self._used]

    def _with_row(self, file: GalleryFile) -> GalleryFile:
        if (content := file.shown_content) is not None:
            return replace(file, indexed=self._indexed[content])
        # A file that is gone keeps its row while its segment stays. After the clusters are made anew, its cluster is
        # unknown, and it is computed again if it comes back.
        kept = self._clustering.kept and file.gone and file.indexed is not None
        if kept and file.indexed is not None and file.indexed.row.segment in self._used:
            return file
        return replace(file, indexed=None)

    def write(self, *, make_live: bool = True) -> Generation:
        """Writes the generation, which readers open from now on if ``make_live`` says so. Raises IndexUnwritable."""
        with refuse_if_unwritable(self._folder.path):
            make_folder(self._building, to_work_in=True)
            if self._to_write:
                self._segments.append(self._write_segment())
            working = self._building / "generation"
            shutil.rmtree(working, ignore_errors=True)
            working.mkdir()
            write_catalog(working / CATALOG_FILE, self._files, self._contents.removals, self._drift())
            write_array(working / CLUSTERS_FILE, self._clustering.centroids)
            self._centroids().write(working)
            self._write_vectors(working)
            manifest = self._manifest(working)
            write_atomically(working / "manifest.json", (manifest.model_dump_json(indent=1) + "\n").encode())
            final = self._folder.generation(manifest.generation)
            os.replace(working, final)
            sync_folder(self._folder.path)
            if make_live:
                self._folder.make_live(manifest.generation)
        return Generation(manifest.generation, final, manifest)

    def _manifest(self, working: Path) -> Manifest:
        statuses = [file.status for file in self._files]
        photos, files = len(self._clustering.cluster_of), statuses.count("indexed")
        contents, live = self._contents, self._live
        return Manifest(
            **contents.origin.model_dump(),
            generation=generation_name(self._number),
            previous=live.generation.name if live.generation else None,
            embedder=contents.embedder,
            roots=tuple(RootEntry(name=root.name, path=str(root.folder)) for root in contents.roots),
            counts=Counts(
                photos=photos,
                files=files,
                duplicates=files - photos,
                bad=statuses.count("bad"),
                gone=statuses.count("gone"),
                clusters=len(self._clustering.centroids),
                rows=sum(entry.rows for entry in self._segments),
            ),
            clusters_asked=self._clustering.asked,
            next_id=max([live.next_id, *(file.id + 1 for file in self._files)]),
            created=datetime.now(UTC).replace(microsecond=0),
            software=installed_version(),
            segments=tuple(self._segments),
            files=tuple(FileEntry.of(path) for path in sorted(working.iterdir())),
        )

    def _write_segment(self) -> SegmentEntry:
        working = self._building / "segment"
        shutil.rmtree(working, ignore_errors=True)
        write_segment(working, self._contents.rows, [self._contents.refs[content] for content in self._to_write])
        files = tuple(FileEntry.of(path) for path in sorted(working.iterdir()))
        final = self._folder.segment(self._new_segment)
        # A killed build may have left a segment of this name. No generation has this number, so none uses it.
        shutil.rmtree(final, ignore_errors=True)
        os.replace(working, final)
        sync_folder(self._folder.segments)
        return SegmentEntry(id=self._new_segment, rows=len(self._to_write), files=files)

    def _write_vectors(self, working: Path) -> None:
        """Writes the places of all rows of the generation, and their vectors in that order."""
        contents, sizes = self._contents, {entry.id: entry.rows for entry in self._segments}
        places = Places.of_files(self._files, sizes, len(self._clustering.centroids))
        names, refs = [*sizes], list[SegmentRow]()
        for segment, row in zip(places.segments.tolist(), places.rows.tolist(), strict=True):
            name = names[segment]
            new = name == self._new_segment
            refs.append(contents.refs[self._to_write[row]] if new else SegmentRow(name, row))
        places.write(working)
        write_vectors(working, contents.rows, refs)

    def _centroids(self) -> Centroids:
        """Computes the centroids of clusters whose photos have changed, and copies the others from the live generation.

        A cluster that lost all of its photos keeps its centroid.
        """
        contents, live, count = self._contents, self._live, len(self._clustering.centroids)
        centroids = Centroids.empty(count, contents.rows)
        old = live.generation.open_centroids() if self._clustering.kept and live.generation is not None else None
        for number, photos in enumerate(members_by_cluster(self._ids, self._clustering.cluster_of, count)):
            if old is not None and (not photos or photos == live.members[number]):
                centroids.copy(number, old)
            else:
                centroids.compute(number, contents.rows, [contents.refs[content] for content in photos])
        return centroids

    def _drift(self) -> Drift:
        photos = sorted(self._ids, key=self._ids.__getitem__)
        refs = [self._contents.refs[content] for content in photos]
        clusters = [self._clustering.cluster_of[content] for content in photos]
        now = mean_distance(self._contents.rows, refs, clusters, self._clustering.centroids)
        if self._clustering.kept and self._live.drift is not None:
            return replace(self._live.drift, photos=len(photos), distance_now=now)
        return Drift(len(photos), now, len(photos), now, automatic=self._clustering.asked is None)
