"""Places: where the row of each shown photo is, in the order in which searches count photos.

The catalog says the same. But reading a million of its rows takes seconds and half a gigabyte, and an index is opened
far more often than built. So a large generation has the answer as one array.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from indexer.store.arrays.segment import map_array
from indexer.store.files import write_array

PLACES_FILE = "places.npy"
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Places:
    """The p photos that are shown: one cluster after the other, and by id in each.

    Attributes:
        ids: (p,) the lowest id among each photo's files. clusters: (p,) from 0, ascending.
        segments: (p,) numbers of segments in the order of the manifest. rows: (p,) of these segments.
    """

    ids: Numbers
    clusters: Numbers
    segments: Numbers
    rows: Numbers

    @staticmethod
    def of_table(table: Numbers) -> Places:
        """Those of a table (p, 4), whose columns are the attributes."""
        ids, clusters, segments, rows = (np.ascontiguousarray(column) for column in table.T)
        return Places(ids, clusters, segments, rows)

    def table(self) -> Numbers:
        """(p, 4): the columns are the attributes."""
        return np.stack([self.ids, self.clusters, self.segments, self.rows], axis=1)

    def fit(self, sizes: Numbers, clusters: int) -> bool:
        """Whether all rows are in segments of these sizes, (s,), and all photos in this many clusters, in order."""
        known = (self.segments >= 0) & (self.segments < len(sizes))
        if not known.all():
            return False
        inside = (self.rows >= 0) & (self.rows < sizes[self.segments]) & (self.clusters >= 0)
        return bool((inside & (self.clusters < clusters)).all() and (np.diff(self.clusters) >= 0).all())

    def write(self, folder: Path) -> None:
        """Write them into a generation's folder."""
        write_array(folder / PLACES_FILE, self.table())

    @staticmethod
    def open(folder: Path, count: int) -> Places:
        """Those of a generation that shows ``count`` photos. Raises IndexRefused: the file is missing or another."""
        return Places.of_table(map_array(folder / PLACES_FILE, (count, 4), np.int64))
