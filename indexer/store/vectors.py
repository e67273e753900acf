"""Says which photo each row of a generation's vectors is of. The vectors lie one cluster after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sketch_search.indexer.store.rows import map_array, write_array
from sketch_search.model.engine import Numbers

PHOTO_TABLE_FILE, VECTORS_FILE, EMBEDDINGS_FILE = "places.npy", "vectors.npy", "embeddings.npy"


@dataclass(frozen=True)
class PhotoTable:
    """Photo, cluster and segment row of the r rows of ``vectors.npy``: p shown by cluster and id, then the others.

    ids: (r,) the lowest of a photo's files, 0 for hidden. clusters: (r,), their number for hidden.
    segments: (r,) in the manifest's order. segment_rows: (r,) rows in these segments.
    """

    ids: Numbers
    clusters: Numbers
    segments: Numbers
    segment_rows: Numbers

    @staticmethod
    def of_array(array: Numbers) -> PhotoTable:
        return PhotoTable(*(np.ascontiguousarray(column) for column in array.T))

    @staticmethod
    def of_photos(
        ids: Numbers, clusters: Numbers, segments: Numbers, segment_rows: Numbers, sizes: Sequence[int], count: int
    ) -> PhotoTable:
        """Computes the table from columns of the shown photos, (p,) each; sizes: of segments; count: of clusters."""
        parts = [np.stack([ids, clusters, segments, segment_rows], axis=1)[np.lexsort((ids, clusters))]]
        for number, size in enumerate(sizes):
            hidden = np.ones(size, np.bool_)
            hidden[segment_rows[segments == number]] = False
            left = np.flatnonzero(hidden)
            same = (np.full_like(left, value) for value in (0, count, number))
            parts.append(np.stack([*same, left], axis=1))
        return PhotoTable.of_array(np.concatenate(parts))

    def array(self) -> Numbers:
        """Returns the columns side by side, (r, 4)."""
        return np.stack([self.ids, self.clusters, self.segments, self.segment_rows], axis=1)

    def fit(self, sizes: Numbers, clusters: int, photos: int) -> bool:
        """Returns True if each of the shown ``photos`` has a row in a segment of ``sizes``, and a cluster, in order."""
        segments, rows, shown = self.segments[:photos], self.segment_rows[:photos], self.clusters[:photos]
        known = len(shown) == photos and (segments >= 0).all() and (segments < len(sizes)).all() and (rows >= 0).all()
        if not known or not (rows < sizes[segments]).all():
            return False
        return bool((shown >= 0).all() and (shown < clusters).all() and (np.diff(shown) >= 0).all())

    def of_segment(self, number: int) -> Numbers:
        """Returns the photo rows of the m rows of a segment, (m,) in their order."""
        photo_rows = np.flatnonzero(self.segments == number)
        return photo_rows[np.argsort(self.segment_rows[photo_rows], kind="stable")]

    def write(self, folder: Path) -> None:
        write_array(folder / PHOTO_TABLE_FILE, self.array())

    @staticmethod
    def open(folder: Path, rows: int) -> PhotoTable:
        """Maps the table of a generation, of this many rows, into memory. Raises IndexRefused as ``map_array``."""
        return PhotoTable.of_array(map_array(folder / PHOTO_TABLE_FILE, (rows, 4), np.int64))
