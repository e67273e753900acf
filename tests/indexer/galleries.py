"""Folders of photos for the tests, and looks into what became of them."""

import json
import shutil
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from sketch_search.indexer import BuildReport, BuildRequest, Index, Progress, build, open_index
from sketch_search.indexer.building.writer import make_clusters
from sketch_search.indexer.samples import SKETCHED, draw_photo
from sketch_search.indexer.store.catalog import Catalog
from sketch_search.indexer.store.files import hash_file
from sketch_search.indexer.store.generation import current_generation
from sketch_search.indexer.store.location import IndexFolder
from sketch_search.indexer.store.reader import ShardsFolder, ShardsManifest
from sketch_search.indexer.store.rows import PhotoArrays, SegmentReader, SegmentRows
from sketch_search.model import Matcher, Tokens
from tests.pictures import FOUR, SHAPES, encoded, page, panorama, photo

#: The photos of ``save_parted`` without parts.
ORDINARY = 8


@dataclass(frozen=True)
class Collection:
    """Twelve photos in two folders, and the index that a network makes of them."""

    photos: Path
    index: Path
    matcher: Matcher

    def build(self, network: Any = None, progress: Progress | None = None, **options: Any) -> BuildReport:
        """Build the index, or bring it up to date, by naming the folder; network: another one than its own."""
        return build(self.index, BuildRequest([self.photos], **options), network or self.matcher, progress)

    def update(self, **options: Any) -> BuildReport:
        return build(self.index, BuildRequest(**options), self.matcher)

    def open(self) -> Index:
        return open_index(self.index, self.matcher)

    def copied(self, folder: Path) -> Self:
        return replace(self, index=Path(shutil.copytree(self.index, folder / "index")))


@cache
def photo_file(number: int) -> bytes:
    """Photo ``number`` as a PNG file, always the same picture."""
    return encoded(photo(SHAPES[number % len(SHAPES)], size=48, seed=number))


def save_photo(path: Path, number: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(photo_file(number))
    return path


def save_photos(folder: Path, count: int, start: int = 0) -> Path:
    """Photos in ``folder`` and its folder ``in here``, names with spaces and accents among them."""
    for number in range(start, start + count):
        save_photo(folder / ("in here" if number % 3 == 0 else "") / f"Ännchen {number:03}.png", number)
    return folder


def save_parted(folder: Path) -> Path:
    """Saves so many ordinary photos, a page of four, and a panorama of five things."""
    folder.mkdir()
    for number, thing in enumerate(SKETCHED[:ORDINARY]):
        draw_photo(thing, 1).resize((64, 64)).save(folder / f"{number} {thing}.png")
    page(FOUR, 2)[0].save(folder / "4 page.png")
    panorama(SKETCHED[4:9]).save(folder / "5 wide.png")
    return folder


def index_bytes(index: Path) -> dict[str, bytes]:
    """Returns every file of an index that a build answers for, the manifest without its time."""
    found = {}
    for path in sorted(index.rglob("*")):
        name = path.relative_to(index).as_posix()
        if path.is_dir() or name in (".lock", "progress.json", "damaged.json"):
            continue
        data = path.read_bytes()
        if path.name == "manifest.json":
            data = b"\n".join(line for line in data.splitlines() if b'"created"' not in line)
        found[name] = data
    return found


def read_catalog(path: Path) -> list[tuple[Any, ...]]:
    """Reads every entry of a catalog, by id: the columns of its table."""
    with Catalog(path) as opened:
        return [*opened.entries()]


def current_catalog(index: Path) -> list[tuple[Any, ...]]:
    live = IndexFolder(index).current()
    assert live is not None
    return read_catalog(index / live / "photos.sqlite")


def catalog(index: Path) -> dict[str, tuple[int, str, int | None, str | None, int | None]]:
    """Reads the catalog of the live generation: id, status, cluster, segment and row by path.

    The end of a segment's name is left out: it differs with the folders of the gallery.
    """
    return {
        path: (number, status, cluster, segment and segment.partition("-")[0], row)
        for number, _, path, *_, status, _, cluster, segment, row in current_catalog(index)
    }


def ids_of(index: Index, cluster: int) -> npt.NDArray[np.int64]:
    return index.ids[index.vectors.rows_of(cluster)]


def tokens_of(index: Index, cluster: int) -> Tokens:
    return index.photo_tokens(index.vectors.rows_of(cluster))


def clustered(points: npt.NDArray[np.float32], count: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Returns the centroids (c, e) of at most ``count`` clusters of points (m, e), and each point's cluster (m,)."""
    reader = SegmentReader({"s": PhotoArrays({"vectors": points})})
    rows = rows_at(*(("s", number) for number in range(len(points))))
    made = make_clusters(rows, reader, count)
    return made.centroids, made.clusters.astype(np.int64)


def rows_at(*rows: tuple[str, int]) -> SegmentRows:
    names = [*dict.fromkeys(name for name, _ in rows)]
    sources = np.array([names.index(name) for name, _ in rows], np.int32)
    return SegmentRows(tuple(names), sources, np.array([number for _, number in rows]))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def edit_manifest(index: Path, **changes: object) -> None:
    path = index / (IndexFolder(index).current() or "") / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def sign(index: Path) -> None:
    """Make the manifest agree with the files as they are now, as a faulty writer would."""
    path = index / "g000001" / "manifest.json"
    manifest = json.loads(path.read_text())
    places = [(index / "g000001", manifest)] + [(index / "segments" / s["id"], s) for s in manifest["segments"]]
    for folder, holder in places:
        for entry in holder["files"]:
            entry |= {"size": (folder / entry["name"]).stat().st_size, "sha256": hash_file(folder / entry["name"])}
    path.write_text(json.dumps(manifest))


def read_shards(shards: Path) -> ShardsManifest:
    manifest = ShardsFolder(shards).manifest()
    assert manifest is not None
    return manifest


@dataclass(frozen=True)
class Held:
    """Holds what is in an index.

    Attributes:
        files: the catalog without rows. photos: the bytes of the rows of each shown photo and its parts. centroids:
            those of its cluster. means: (c, e) the centroids of all clusters.
    """

    files: list[tuple[Any, ...]]
    photos: dict[int, list[bytes]]
    centroids: dict[int, bytes]
    means: np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def held(index: Path) -> Held:
    live = current_generation(IndexFolder(index))
    files, means = read_catalog(live.path / "photos.sqlite"), live.read_kmeans_centroids()
    reader = SegmentReader(live.open_rows())
    found = Held([file[:-3] for file in files], {}, {}, means)
    parts = {
        (name, row): count for name, row, count in live.open_photo_table().parts_by_row([*live.manifest.segment_sizes])
    }
    # Of files with one content the first counts.
    shown = {file[3]: file for file in reversed(files) if file[8] == "indexed"}
    for number, *_, cluster, segment, row in shown.values():
        own = range(row, row + 1 + parts.get((segment, row), 0))
        arrays = reader.take(rows_at(*((segment, each) for each in own))).arrays
        found.photos[number] = [np.asarray(arrays[name]).tobytes() for name in sorted(arrays)]
        found.centroids[number] = means[cluster].tobytes()
    return found


def check_same(shards: Path, plain: Path) -> None:
    """The shards hold what the plain index holds: the same files with the same ids, rows and clusters.

    What may differ is the order of rows within a shard; and a shard has the
    centroids of its own photos only, in the order of all.
    """
    manifest = read_shards(shards)
    parts = [held(ShardsFolder(shards).shard(number).path) for number in range(len(manifest.shards))]
    whole = held(plain)
    assert sorted(file for part in parts for file in part.files) == whole.files
    assert sorted(photo for part in parts for photo in part.photos) == sorted(whole.photos)
    cells = [{*part.centroids.values()} for part in parts]
    assert sum(map(len, cells)) == len(set().union(*cells)) == len(whole.means)
    for part, entry in zip(parts, manifest.shards, strict=True):
        assert part.photos.items() <= whole.photos.items()
        assert part.centroids.items() <= whole.centroids.items()
        assert (len(part.photos), len(part.means)) == (entry.photos, entry.clusters)
        order = [centroid.tobytes() for centroid in whole.means]
        assert [mean.tobytes() for mean in part.means] == sorted(set(part.centroids.values()), key=order.index)
    assert manifest.clusters == len(whole.means)
