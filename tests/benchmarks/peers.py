"""This project beside other search engines, on the same tokens of the same photos; `make peers`.

All search the gallery of ``--protocol everything --split unseen`` by sketches of its unseen classes, with the default's
twin, which was not trained on them. Each peer gets [Ret] and the patch tokens as this project's index keeps them, and
runs with its own defaults. No time includes the encoding of photos or sketches.

The extra `peers` pins the versions. fast-plaid needs an older PyTorch than the other extras, so `make peers` has an
environment of its own.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from sketch_search.indexer import BuildRequest, Index, build, open_index
from sketch_search.indexer.samples import SKETCHED, draw_sketch
from sketch_search.model import Matcher
from sketch_search.model.engine import Floats, unit
from sketch_search.model.search.clusters import default_clusters
from sketch_search.model.search.stages import RERANK_WITHOUT_DIFFUSION
from sketch_search.service.schemas.query import TunedQuery
from sketch_search.training.corpus import DATA_VARIABLE
from sketch_search.training.tasks import UNSEEN, read_task, write_folders
from tests.benchmarks.command import Command, by_matcher
from tests.benchmarks.costs import size
from tests.benchmarks.galleries import Query, draw_gallery
from tests.benchmarks.results import Row
from tests.benchmarks.two_stage import average_precision
from tests.installations import CHECKOUT
from tests.searching import Searcher

TWIN = CHECKOUT / "weights" / "zero-shot.safetensors"
# Every fifth sketch of unseen classes is a query.
EVERY, QUICK_QUERIES = 5, 2
DRAWN, DRAWN_QUICKLY = 500, 20
# Results of a timed search, and of the ranking whose precision is measured: as many as a search diffuses.
PAGE, RANKED = 20, 1000
# Cells that FAISS opens.
PROBED = 16
OWN: dict[str, dict[str, Any]] = {
    "this project: relation network, diffused (the default)": {},
    "this project: the same for one thing, wherever it is drawn": {"things": "one", "places": "no"},
    **{
        f"this project: relation network of {count:,} photos": {"method": "rn", "diffuse": False, "rerank": count}
        for count in (RERANK_WITHOUT_DIFFUSION, RANKED)
    },
}


@dataclass(frozen=True)
class Photos:
    """Holds the vectors from which peers are built. ret: (p, d), patches: (p, n, d), both of length 1."""

    ret: Floats
    patches: Floats


@dataclass(frozen=True)
class Drawn:
    """A query, its [Ret] (d,) and patch tokens (n, d), of length 1, and the photos that show its class, (p,) bool."""

    query: Query
    ret: Floats
    patches: Floats
    relevant: NDArray[np.bool_]


# Finds the rows of so many photos, best first.
Find: TypeAlias = Callable[[Drawn, int], Sequence[int]]
# The same, and the milliseconds that it took.
Search: TypeAlias = Callable[[Drawn, int], tuple[Sequence[int], float]]


def fast_plaid(photos: Photos, folder: Path) -> Find:
    from fast_plaid.search import FastPlaid

    index = FastPlaid(str(folder), device="cpu")
    index.create(list(torch.from_numpy(photos.patches)))

    def find(drawn: Drawn, count: int) -> Sequence[int]:
        (found,) = index.search(torch.from_numpy(drawn.patches[None]), top_k=count, show_progress=False)
        return [row for row, _ in found]

    return find


def faiss_ivf(photos: Photos, folder: Path) -> Find:
    width = photos.ret.shape[1]
    index = faiss.IndexIVFFlat(
        faiss.IndexFlatIP(width), width, default_clusters(len(photos.ret)), faiss.METRIC_INNER_PRODUCT
    )
    index.train(photos.ret)
    index.add(photos.ret)
    index.nprobe = PROBED
    faiss.write_index(index, str(folder / "ret.faiss"))
    np.save(folder / "patches.npy", photos.patches.astype(np.float16))
    patches = np.load(folder / "patches.npy", mmap_mode="r")

    def find(drawn: Drawn, count: int) -> Sequence[int]:
        (near,) = index.search(drawn.ret[None], RANKED)[1]
        near = near[near >= 0]
        # The sum of the best match of each token of the sketch, as ColBERT and PLAID have it.
        kernel = patches[near].astype(np.float32) @ drawn.patches.T
        return near[np.argsort(-kernel.max(axis=1).sum(axis=1))][:count].tolist()

    return find


def usearch(photos: Photos, folder: Path) -> Find:
    from usearch.index import Index as Graph

    index = Graph(ndim=photos.ret.shape[1], metric="cos")
    index.add(np.arange(len(photos.ret)), photos.ret)
    index.save(str(folder / "ret.usearch"))

    def find(drawn: Drawn, count: int) -> Sequence[int]:
        return index.search(drawn.ret, count).keys.tolist()

    return find


@dataclass(frozen=True)
class Peer:
    """distribution: its name for pip. what: how it searches. build: writes its files to an empty folder."""

    distribution: str
    what: str
    build: Callable[[Photos, Path], Find]


PEERS = (
    Peer("fast-plaid", "PLAID over patch tokens", fast_plaid),
    Peer("faiss-cpu", f"IVF of [Ret], then best matches of the tokens of {RANKED:,} photos", faiss_ivf),
    Peer("usearch", "HNSW of [Ret]", usearch),
)


def measure_peer(peer: Peer, photos: Photos, queries: Sequence[Drawn], folder: Path) -> Row:
    folder.mkdir()
    find = peer.build(photos, folder)

    def search(drawn: Drawn, count: int) -> tuple[Sequence[int], float]:
        begun = time.perf_counter()
        return find(drawn, count), 1000 * (time.perf_counter() - begun)

    way = f"{peer.distribution} {version(peer.distribution)}: {peer.what}"
    return {"way": way, "MB": size(folder) / 1e6, **measured(search, queries)}


def measured(search: Search, queries: Sequence[Drawn]) -> Row:
    search(queries[0], PAGE)  # to warm up
    precisions = []
    for drawn in queries:
        found, _ = search(drawn, RANKED)
        precisions.append(average_precision(drawn.relevant[list(found)].tolist(), int(drawn.relevant.sum())))
    return {
        "a query (ms)": float(np.median([search(drawn, PAGE)[1] for drawn in queries])),
        f"mAP@{RANKED}": float(np.mean(precisions)),
    }


def own_search(searcher: Searcher, asked: dict[str, Any]) -> Search:
    row_of = {photo: row for row, photo in enumerate(searcher.index.ids.tolist())}

    def search(drawn: Drawn, count: int) -> tuple[Sequence[int], float]:
        outcome = searcher.search(drawn.query.image(), TunedQuery(k=count, **asked))
        timings = outcome.timings_ms
        return [row_of[hit.id] for hit in outcome.results], timings.clusters + timings.photos + timings.diffusion

    return search


def prepare(folder: Path, *, quick: bool) -> list[Query]:
    """Writes the photos to ``folder``/photo/<class>/, real ones if there are any, and returns the queries."""
    if os.environ.get(DATA_VARIABLE) and not quick:
        task = read_task("everything", "unseen")
        write_folders(task, folder)
        sketches = [sketch for sketch in task.corpus.sketches if sketch.label in task.groups[UNSEEN]]
        return [Query(sketch.path.name, sketch.label, True, sketch.path) for sketch in sketches[::EVERY]]
    draw_gallery(folder / "photo", DRAWN_QUICKLY if quick else DRAWN)
    names = SKETCHED[:QUICK_QUERIES] if quick else SKETCHED
    return [Query(name, name, False, draw_sketch(name)) for name in names]


def encoded(index: Index, matcher: Matcher, queries: Sequence[Query]) -> tuple[Photos, list[Drawn]]:
    """Reads what the index keeps of the photos, by its rows, and encodes the sketches as a search does."""
    rows = np.arange(index.photo_count)
    photos = Photos(index.vectors.of(rows), unit(index.photo_tokens(rows).patches))
    shown = [{PurePosixPath(path).parent.name for path in entry.paths} for entry in index.photos(index.ids.tolist())]
    drawn = []
    for query in queries:
        tokens = matcher.encode(matcher.prepare(query.image(), "sketch")[None], "sketch")
        relevant = np.array([query.label in names for names in shown])
        drawn.append(Drawn(query, unit(tokens.ret[0]), unit(tokens.patches[0]), relevant))
    return photos, drawn


def main(arguments: Sequence[str] | None = None) -> int:
    command = Command("peers", __doc__)
    command.set_defaults(weights=TWIN)
    options = command.begin(arguments)
    matcher = command.load()
    with tempfile.TemporaryDirectory() as folder:
        place, index_path = Path(folder) / "gallery", Path(folder) / "index"
        queries = prepare(place, quick=options.quick)
        build(index_path, BuildRequest([place / "photo"], embedder="ret"), matcher)
        with open_index(index_path, matcher) as index:
            photos, drawn = encoded(index, matcher, queries)
            count, tokens, width = photos.patches.shape
            kind = "sketches of unseen classes" if queries[0].unseen else "drawn sketches"
            result = command.result(
                "Peers",
                by_matcher(matcher),
                said=f"{len(queries)} {kind}; {count:,} photos, each with [Ret] and {tokens} tokens of {width} "
                f"numbers. Medians of {PAGE} results, without encoding; photos that are not ranked among the first "
                f"{RANKED:,} are lost.",
            )
            searcher = Searcher(index, matcher)
            for name, asked in OWN.items():
                found = measured(own_search(searcher, asked), drawn)
                result.rows.append({"way": name, "MB": size(index_path) / 1e6, **found})
        for number, peer in enumerate(PEERS):
            result.rows.append(measure_peer(peer, photos, drawn, Path(folder) / f"peer-{number}"))
    command.save(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
