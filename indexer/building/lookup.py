"""What a generation has beside its catalog so that a large gallery is opened and searched quickly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from indexer.building.clustering import Clustering
from indexer.errors import IndexRefused
from indexer.store import (
    EmbedderEntry,
    Generation,
    IndexedContent,
    InvertedCells,
    Places,
    RowRef,
    Rows,
    default_clusters,
    inverted_cells,
    read_inverted_centroids,
    write_inverted_file,
)

# Cells are made anew where there are more than so many times too many or too few of them.
_MOST_OFF = 2


@dataclass(frozen=True)
class Inversion:
    """When a generation gets an inverted file.

    Attributes:
        photos: from so many on; None for those alone whose live generation has one.
        anew: whether its cells are made anew, even if the live generation has some.
    """

    photos: int | None = None
    anew: bool = False

    def applies(self, photos: int, live: Generation | None, clustering: Clustering) -> bool:
        """Whether a generation of so many photos gets one. An index that has one keeps it as long as its clusters."""
        if self.photos is not None and photos >= self.photos:
            return True
        return live is not None and live.manifest.has_inverted_file and clustering.kept is not None


def shown_order(ids: Mapping[str, int], clustering: Clustering) -> list[str]:
    """The content hashes of all shown photos, by cluster and then by id: the order of their places."""
    return sorted(ids, key=lambda content: (clustering.cluster_of[content], ids[content]))


def places_of(
    order: Sequence[str], ids: Mapping[str, int], indexed: Mapping[str, IndexedContent], segments: Sequence[str]
) -> Places:
    """The places of the photos in ``order``.

    Args:
        ids: the photos' ids, indexed: where their rows are in the next generation; both by content hash.
        segments: the names of its segments, in order.
    """
    numbers = {name: number for number, name in enumerate(segments)}
    found = ((ids[content], indexed[content]) for content in order)
    table = [(photo, at.cluster, numbers[at.row.segment], at.row.number) for photo, at in found]
    return Places.of_table(np.array(table, np.int64).reshape(-1, 4))


def write_inversion(
    folder: Path,
    rows: Rows,
    refs: Sequence[RowRef],
    clusters: npt.NDArray[np.int64],
    clustering: Clustering,
    embedder: EmbedderEntry,
    *,
    anew: bool,
) -> None:
    """Write the inverted file of photos into the folder of their generation.

    Clusters of [Ret] are its cells, so that photos that are found together lie together. Clusters by other vectors
    would not do, since photos that are near by [Ret] lie in too many of them; then the cells are made for it.

    Args:
        refs: the rows of the photos, by place. clusters: (p,) theirs. anew: as in ``Inversion``.
    """

    def read(places: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return np.asarray(rows.ret([refs[place] for place in places.tolist()]), np.float32)

    wanted = default_clusters(len(refs))
    if embedder.kind == "ret" and len(clustering.centroids) * _MOST_OFF >= wanted:
        cells = InvertedCells(clustering.centroids, clusters)
    else:
        centroids = None
        if clustering.kept is not None and not anew:
            with suppress(IndexRefused):
                centroids = read_inverted_centroids(clustering.kept.folder, rows.ret([]).shape[1])
        if centroids is not None and not wanted <= _MOST_OFF * len(centroids) <= _MOST_OFF**2 * wanted:
            centroids = None
        cells = inverted_cells(read, len(refs), centroids)
    write_inverted_file(folder, read, cells)
