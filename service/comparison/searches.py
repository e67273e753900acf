"""The same sketches, searched with each of several checkpoints in the same photos."""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from indexer import Progress, build
from model.errors import ImageError
from model.images import open_image
from model.metrics import list_metrics
from service.engine import Engine, open_matcher
from service.errors import BadSearch
from service.schemas import ClusterResponse, PageParams, Photo, SearchQuery, SearchResult
from service.settings import Settings

THUMBNAIL = 160
_IMAGES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"})


@dataclass(frozen=True)
class Sketch:
    """One sketch to search with.

    Attributes:
        path: its file.
        label: the name of the folder that it lies in; None for one that lies directly in the folder of all sketches.
    """

    path: Path
    label: str | None


@dataclass(frozen=True)
class Found:
    """One photo that was found.

    Attributes:
        path: as results show it.
        thumbnail: a JPEG, its longest side at most THUMBNAIL pixels.
        right: whether it lies in a folder of the sketch's name; None where no folder of the photos has that name.
    """

    path: str
    thumbnail: bytes
    right: bool | None


@dataclass(frozen=True)
class NetworkResults:
    """What one checkpoint found.

    Attributes:
        name: of its file, without the ending.
        network, method: what answered, as ``/info`` and every answer say it.
        results: for each sketch the photos found, best first.
        map: mean average precision of the first k results, divided by min(k, the photos that are right), over the
            sketches with a label, 0 to 1. None where there are none.
        precision: the mean share of k results that are right, 0 to 1; None as ``map``.
        milliseconds: median time of a search, decoding of the sketch included.
    """

    name: str
    network: str
    method: str
    results: tuple[tuple[Found, ...], ...]
    map: float | None
    precision: float | None
    milliseconds: float


@dataclass(frozen=True)
class Comparison:
    """Checkpoints side by side.

    Attributes:
        photos: of the gallery. k: results of each search.
        sketches: those that were searched with; labelled: how many of them have photos that are right.
        broken: files that are no pictures, each with the reason.
        networks: in the order in which they were named.
    """

    photos: int
    k: int
    sketches: tuple[Sketch, ...]
    labelled: int
    broken: tuple[tuple[Path, str], ...]
    networks: tuple[NetworkResults, ...]


def compare_checkpoints(
    settings: Settings,
    checkpoints: Sequence[Path],
    photos: Sequence[Path],
    sketches: Path,
    folder: Path,
    *,
    per_class: int = 4,
    query: SearchQuery | None = None,
    bar: bool = False,
) -> Comparison:
    """Index the photos with each checkpoint, one after the other, and search with every sketch.

    Args:
        settings: of the searches; each checkpoint takes the place of their weights.
        photos: folders of the gallery.
        sketches: an image file, or a folder of them. Those in a folder of it are labelled with this folder's name.
        folder: gets an index for each checkpoint, which a second call finds again.
        per_class: sketches of each label. All sketches without a label are taken.
        query: what is asked beside the sketch; None for a search as by default.
        bar: show progress bars on standard error.

    Raises:
        BadSearch: there is nothing to compare, or two checkpoints would share an index.
        ModelError, IndexerError: a checkpoint cannot be opened, or the photos cannot be indexed.
    """
    if len(checkpoints) < 2:
        raise BadSearch("a comparison needs two checkpoints or more.")
    names = [checkpoint.stem for checkpoint in checkpoints]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise BadSearch(f"two checkpoints are called {twice[0]}; each needs a name of its own.")
    asked = query or SearchQuery()
    found = find_sketches(sketches, per_class)
    pictures, broken = _readable(found)
    if not pictures:
        raise BadSearch(f"there is no sketch in {sketches}; name an image file or a folder of image files.")
    used = tuple(sketch for sketch, _ in pictures)
    k = asked.k or settings.default_k
    engines = (_engine(settings, checkpoint, photos, folder, bar) for checkpoint in checkpoints)
    networks, gallery, labelled = [], 0, 0
    for name, engine in zip(names, engines, strict=True):
        with closing(engine):
            relevant, gallery = _relevant(engine), engine.photo_count
            networks.append(_results(name, engine, pictures, asked, relevant, k))
        labelled = sum(relevant[sketch.label or ""] > 0 for sketch, _ in pictures)
    used = tuple(sketch for sketch, _ in pictures)
    return Comparison(gallery, k, used, labelled, broken, tuple(networks))


def find_sketches(place: Path, per_class: int) -> tuple[Sketch, ...]:
    """The image files at ``place``, by path: of each folder below it the first ``per_class``, and all beside these.

    A file is taken for an image by its ending. Raises BadSearch where there is nothing at ``place``.
    """
    if place.is_file():
        return (Sketch(place, None),)
    if not place.is_dir():
        raise BadSearch(f"there is no folder {place}; name one with sketches.")
    files = sorted(path for path in place.rglob("*") if path.suffix.lower() in _IMAGES and path.is_file())
    taken: Counter[str] = Counter()
    chosen = []
    for path in files:
        label = None if path.parent == place else path.parent.name
        taken[label or ""] += 1
        if label is None or taken[label] <= per_class:
            chosen.append(Sketch(path, label))
    return tuple(chosen)


def labels_of(photo: Photo) -> set[str]:
    """The names of the folders that a photo lies in; equal files may lie in several."""
    return {PurePosixPath(path).parent.name for path in photo.paths}


def relevant_photos(page: Callable[[int, int], ClusterResponse], clusters: int) -> Counter[str]:
    """How many photos of a gallery lie in folders of each name. ``page`` gives a cluster's photos from an offset on."""
    found: Counter[str] = Counter()
    for number in range(clusters):
        seen, size = 0, 1
        while seen < size:
            part = page(number, seen)
            found.update(label for photo in part.photos for label in labels_of(photo))
            seen, size = seen + len(part.photos), part.size
    return found


def _relevant(engine: Engine) -> Counter[str]:
    clusters = engine.info()[1].clusters
    return relevant_photos(lambda number, offset: engine.cluster(number, PageParams(offset=offset)), clusters)


def _readable(sketches: Sequence[Sketch]) -> tuple[list[tuple[Sketch, bytes]], tuple[tuple[Path, str], ...]]:
    """The sketches that can be opened, with the bytes of their files, and the others with the reason."""
    good, broken = [], []
    for sketch in sketches:
        data = sketch.path.read_bytes()
        try:
            open_image(io.BytesIO(data), sketch=True)
        except ImageError as error:
            broken.append((sketch.path, str(error)))
        else:
            good.append((sketch, data))
    return good, tuple(broken)


def _engine(settings: Settings, checkpoint: Path, photos: Sequence[Path], folder: Path, bar: bool) -> Engine:
    """The photos, indexed by a checkpoint and ready to be searched."""
    index = folder / f"{checkpoint.stem}-index"
    own = settings.model_copy(update={"weights": checkpoint, "index": index, "gallery": ()})
    matcher = open_matcher(own)
    build(photos, index, matcher, progress=Progress(bar=bar))
    return Engine(own, matcher)


def _results(
    name: str,
    engine: Engine,
    sketches: Sequence[tuple[Sketch, bytes]],
    query: SearchQuery,
    relevant: Counter[str],
    k: int,
) -> NetworkResults:
    """What the searches of one network find, and its figures over the sketches whose label the photos have."""
    # The first search pays for what all others find ready.
    method = engine.search(engine.prepare(sketches[0][1]), query).method
    rows, seconds, figures = [], [], []
    for sketch, data in sketches:
        started = time.perf_counter()
        answer = engine.search(engine.prepare(data), query)
        seconds.append(time.perf_counter() - started)
        label = sketch.label if relevant[sketch.label or ""] else None
        rows.append(tuple(_found(engine, photo, label) for photo in answer.results))
        if label is not None:
            hits = [bool(photo.right) for photo in rows[-1]]
            figures.append(list_metrics(hits, relevant[label], k))
    return NetworkResults(
        name=name,
        network=engine.info()[0].name,
        method=method,
        results=tuple(rows),
        map=float(np.mean([one.average_precision for one in figures])) if figures else None,
        precision=float(np.mean([one.precision for one in figures])) if figures else None,
        milliseconds=float(np.median(seconds)) * 1000,
    )


def _found(engine: Engine, photo: SearchResult, label: str | None) -> Found:
    small = engine.thumbnail(engine.photo(photo.id), THUMBNAIL)
    return Found(photo.paths[0], small, None if label is None else label in labels_of(photo))
