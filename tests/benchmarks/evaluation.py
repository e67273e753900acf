"""How good and how fast a running server's answers are, and what clicks on its kinds help.

A checkpoint alone is measured by ``python -m model evaluate``. Here whole searches are, by labelled sketches: a photo
is right for a sketch where the folder that it lies in has the name of the sketch's class.

    python -m tests.benchmarks.evaluation --data ~/labelled --per-class 10
    python -m tests.benchmarks.evaluation --split unseen --feedback --json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from model.datasets import Picture, read_class_folders, read_protocol
from service.client import Client
from service.errors import BadSearch
from service.schemas import Group, Photo, SearchQuery, SearchResponse

WARM_UP = 3
# Results over which average precision and recall are taken where somebody clicks.
DEEP = 100
# The number of kinds that the person dislikes at once if no kind on the page is right.
DISLIKED = 3


@dataclass(frozen=True)
class Evaluation:
    """Figures of a server.

    Attributes:
        queries: sketches that were searched with. photos, clusters: of the server's index. k: results on a page.
        searches: the means of each figure over all queries, by method and then by nprobe as it was asked for
            ("default", a number, or "all", the exhaustive search), or by the number of clicks.
    """

    queries: int
    photos: int
    clusters: int
    k: int
    searches: dict[str, dict[str, dict[str, float]]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures a server and prints its figures. Raises as ``labelled_sketches`` and ``gallery_of``."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.evaluation", description=__doc__)
    add = parser.add_argument
    add("--url", default="http://127.0.0.1:8000", help="the server (http://127.0.0.1:8000)")
    add("--api-key", help="the server's key")
    add("--data", type=Path, metavar="DIR", help="sketch/<class>/*, of photos indexed as .../<class>/*")
    add("--split", choices=["val", "unseen", "train"], default="val", help="classes of SKETCH_SEARCH_DATA (val)")
    add("--per-class", type=int, default=4, metavar="N", help="sketches of each class (4)")
    add("--k", type=int, help="results looked at (10; with --feedback 20)")
    add("--method", action="append", help="one to measure, again for more (auto and all there are)")
    add("--nprobe", action="append", type=int, help="also by so many clusters, again for more")
    add("--feedback", type=int, nargs="?", const=3, metavar="CLICKS", help="what so many simulated clicks help (3)")
    add("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    sketches = labelled_sketches(options.data, options.per_class, options.split)
    with Client(options.url, options.api_key) as client:
        if options.feedback is None:
            nprobes = (None, *(options.nprobe or ()))
            result = evaluate_server(client, sketches, k=options.k or 10, methods=options.method, nprobes=nprobes)
        else:
            methods = options.method or ["auto"]
            result = play(client, sketches, k=options.k or 20, methods=methods, clicks=options.feedback)
    print(json.dumps(dataclasses.asdict(result)) if options.json else figures_table(result))
    return 0


def figures_table(result: Evaluation) -> str:
    """Returns the figures as a table for people."""
    searched = f"{result.photos} photos in {result.clusters} clusters"
    lines = [f"{result.queries} sketches against {searched}, first {result.k} results"]
    for method, rows in result.searches.items():
        names = [name for row in rows.values() for name in row]
        head = [f"{name:>{max(10, len(name) + 2)}}" for name in dict.fromkeys(names)]
        lines += ["", f"{method:<10}" + "".join(head)]
        for way, row in rows.items():
            shown = [f"{value:.3f}" if value <= 1 else f"{value:.0f}" for value in row.values()]
            lines.append(f"{way:<10}" + "".join(f"{one:>{len(of)}}" for one, of in zip(shown, head, strict=True)))
    return "\n".join(lines)


def labelled_sketches(folder: Path | None, per_class: int, split: str = "val") -> tuple[Picture, ...]:
    """Returns the first ``per_class`` sketches of each class; where a class has several sources, they take turns.

    Args:
        folder: holds sketch/<class>/*. None for the data that SKETCH_SEARCH_DATA names.
        split: which classes of that data.

    Raises:
        ModelError: there is neither.
    """
    corpus = read_protocol(split) if folder is None else read_class_folders(folder)
    by_class: dict[str, dict[str, list[Picture]]] = {}
    for picture in corpus.sketches:
        by_class.setdefault(picture.label, {}).setdefault(picture.source, []).append(picture)
    chosen: list[Picture] = []
    for _, sources in sorted(by_class.items()):
        turns = [picture for turn in zip_longest(*sources.values()) for picture in turn if picture is not None]
        chosen += turns[:per_class]
    return tuple(chosen)


@dataclass(frozen=True)
class Gallery:
    """The gallery that a server searches.

    Attributes:
        methods: the server's methods. photos, clusters: how many there are.
        relevant: how many photos lie in folders of each name.
        sketches: the sketches of classes that the gallery has photos of.
    """

    methods: tuple[str, ...]
    photos: int
    clusters: int
    relevant: Counter[str]
    sketches: tuple[Picture, ...]

    def figures(self, picture: Picture, answer: SearchResponse, k: int) -> dict[str, float]:
        """Returns the figures of the first k results for a sketch."""
        hits = [picture.label in labels_of(result) for result in answer.results]
        return list_figures(hits, self.relevant[picture.label], k)


def gallery_of(client: Client, sketches: Sequence[Picture]) -> Gallery:
    """Asks a server for its gallery, and keeps the sketches that it can answer.

    Raises:
        BadSearch: there are no sketches, none of a class that the gallery has, or the server has nothing loaded.
        ServiceError, ConnectionError: as the client's methods.
    """
    if not sketches:
        raise BadSearch("an evaluation needs sketches; name a folder of sketch/<class>/*.")
    info = client.info()
    if info.model is None or info.index is None:
        raise BadSearch(f"the server cannot answer yet: {info.reason}")
    relevant: Counter[str] = Counter()
    for number in range(info.index.clusters):
        seen, size = 0, 1
        while seen < size:
            part = client.cluster(number, offset=seen)
            relevant.update(label for photo in part.photos for label in labels_of(photo))
            seen, size = seen + len(part.photos), part.size
    found = tuple(picture for picture in sketches if relevant[picture.label])
    if not found:
        raise BadSearch("no photo lies in a folder named as a sketch's class, so none can be right.")
    return Gallery(info.model.methods, info.index.photos, info.index.clusters, relevant, found)


def labels_of(photo: Photo) -> set[str]:
    """Returns the names of the folders that a photo lies in; equal files may lie in several."""
    return {PurePosixPath(path).parent.name for path in photo.paths}


def evaluate_server(
    client: Client,
    sketches: Sequence[Picture],
    *,
    k: int = 10,
    methods: Sequence[str] | None = None,
    nprobes: Sequence[int | None] = (None,),
) -> Evaluation:
    """Search with every sketch: by each method, with each nprobe and exhaustively, one search after the other.

    Figures: ``map``, mean average precision of the first k results, divided by min(k, the photos that are right);
    ``map_of_found``, divided by those of them that were found, as in the two-stage system's paper; ``precision`` and
    ``recall`` of the first k; ``agreement``, the share of the exhaustive search's first k results that this search
    found, too; ``pairs``, how many sketch-centroid and sketch-photo pairs were scored; ``p50_ms`` and ``p95_ms``, from
    the first byte sent to the last byte of the answer. All but the last three are 0 to 1.

    Args:
        k: results looked at. methods: None for "auto" and all that the server offers.
        nprobes: of the two-stage searches; None among them for the server's default.

    Raises as ``gallery_of``.
    """
    gallery = gallery_of(client, sketches)
    searches: dict[str, dict[str, dict[str, float]]] = {}
    wanted: tuple[int | Literal["all"] | None, ...] = (*nprobes, "all")
    for method in methods or ("auto", *gallery.methods):
        for picture in gallery.sketches[:WARM_UP]:
            client.search(picture.path, k=k, method=method)
        # Each sketch is searched with in every way before the next: a machine that slows down then slows all ways.
        rows: dict[int | str | None, list[dict[str, float]]] = {nprobe: [] for nprobe in wanted}
        for picture in tqdm(gallery.sketches, desc=f"searching by {method}", unit="sketch", disable=None):
            data = picture.path.read_bytes()
            timed = {nprobe: _timed(client, data, SearchQuery(k=k, nprobe=nprobe, method=method)) for nprobe in wanted}
            truth = {result.id for result in timed["all"][0].results}
            for nprobe, (answer, milliseconds) in timed.items():
                shared = len(truth & {result.id for result in answer.results}) / max(1, len(truth))
                row = gallery.figures(picture, answer, k)
                rows[nprobe].append({**row, "agreement": shared, "pairs": answer.pairs_scored, "ms": milliseconds})
        searches[method] = {"default" if nprobe is None else str(nprobe): _means(rows[nprobe]) for nprobe in wanted}
    return Evaluation(len(gallery.sketches), gallery.photos, gallery.clusters, k, searches)


def _timed(client: Client, sketch: bytes, query: SearchQuery) -> tuple[SearchResponse, float]:
    start = time.perf_counter()
    answer = client.search(sketch, query)
    return answer, (time.perf_counter() - start) * 1000


def list_figures(hits: ArrayLike, relevant: int, k: int) -> dict[str, float]:
    """Returns map, map_of_found, precision and recall of a search's first k results, as ``evaluate_server`` has them.

    Average precision is interpolated as in `model.metrics.query_metrics`. hits: (n,) bool by rank. relevant: how many
    photos of the gallery are right. Raises ValueError where there are more hits than that, or k is below 1.
    """
    first = np.asarray(hits, dtype=np.bool_)[:k]
    found = int(first.sum())
    if k < 1 or found > relevant:
        raise ValueError(f"{found} of {relevant} relevant photos among the first {k}: counts do not fit")
    precision = first.cumsum() / np.arange(1, len(first) + 1)
    # The highest precision at each rank or beyond it.
    area = float((np.maximum.accumulate(precision[::-1])[::-1] * first).sum())
    averaged = {"map": area / max(1, min(k, relevant)), "map_of_found": area / max(1, found)}
    return averaged | {"precision": found / k, "recall": found / max(1, relevant)}


def _means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Returns the mean of each figure; of times the median and the 95th percentile."""
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0] if name != "ms"}
    if "ms" in rows[0]:
        p50, p95 = np.percentile([row["ms"] for row in rows], (50, 95))
        means |= {"p50_ms": float(p50), "p95_ms": float(p95)}
    return means


@dataclass
class Person:
    """Knows what was drawn, looks at a page of kinds and clicks.

    The first right photo that is not liked yet is liked: first those that stand for a kind, then those in the stacks.
    Where no kind is right, the first DISLIKED ones are disliked.
    """

    label: str
    like: list[int] = field(default_factory=list)
    unlike: list[int] = field(default_factory=list)

    def is_right(self, photo: Photo) -> bool:
        """Returns True if a photo shows what was drawn."""
        return self.label in labels_of(photo)

    def click(self, kinds: Sequence[Group]) -> None:
        """Makes one round of clicks on a page of kinds."""
        shown = [kind.best for kind in kinds] + [photo for kind in kinds for photo in kind.more]
        right = [photo.id for photo in shown if self.is_right(photo)]
        if right:
            # If all are liked already, nothing more can be liked.
            self.like += [photo for photo in right if photo not in self.like][:1]
        else:
            self.unlike += [kind.best.id for kind in kinds[:DISLIKED] if kind.best.id not in self.unlike]


def play(client: Client, sketches: Sequence[Picture], *, k: int, methods: Sequence[str], clicks: int) -> Evaluation:
    """Search with every sketch, and go on with what a simulated person clicks, so many times.

    A liked photo is the first of its results, so it counts there as found. Figures, before any click and after each:
    ``right_kind`` and ``right_photo``, whether a page of k kinds, or photos, shows a right one; ``precision`` of the
    first k photos; ``map`` and ``recall`` of the first DEEP.

    Raises as ``gallery_of``.
    """
    gallery = gallery_of(client, sketches)
    searches: dict[str, dict[str, dict[str, float]]] = {}
    for method in methods:
        bar = tqdm(gallery.sketches, desc=f"clicking by {method}", unit="sketch", disable=None)
        rows = [_rounds(client, sketch, k, method, clicks, gallery) for sketch in bar]
        searches[method] = {str(number): _means([row[number] for row in rows]) for number in range(clicks + 1)}
    return Evaluation(len(gallery.sketches), gallery.photos, gallery.clusters, k, searches)


def _rounds(
    client: Client, sketch: Picture, k: int, method: str, clicks: int, gallery: Gallery
) -> list[dict[str, float]]:
    """Returns the figures of one sketch, before any click and after each."""
    data, person = sketch.path.read_bytes(), Person(sketch.label)
    rows = []
    for _ in range(clicks + 1):
        # Liked photos are compared by [Ret], whatever ranked the photos before.
        by = "auto" if person.like else method
        asked = SearchQuery(like=tuple(person.like), unlike=tuple(person.unlike), method=by)
        kinds = client.search(data, asked.model_copy(update={"view": "groups", "k": k})).groups or ()
        photos = client.search(data, asked.model_copy(update={"k": min(DEEP, gallery.relevant.total())}))
        deep, first = (gallery.figures(sketch, photos, count) for count in (DEEP, k))
        rows.append(
            {
                "right_kind": float(any(person.is_right(kind.best) for kind in kinds)),
                "right_photo": float(first["precision"] > 0),
                "precision": first["precision"],
                "map": deep["map"],
                "recall": deep["recall"],
            }
        )
        person.click(kinds)
    return rows


if __name__ == "__main__":
    sys.exit(main())
