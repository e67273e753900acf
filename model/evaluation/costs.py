"""Measures the costs of a network, and the accuracy and costs of a search in two stages."""

import copy
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sketch_search.model.datasets import Corpus, Picture
from sketch_search.model.engine import Floats, Tokens, unit
from sketch_search.model.errors import ModelError
from sketch_search.model.evaluation.figures import relevance
from sketch_search.model.images import open_image
from sketch_search.model.matcher import Matcher
from sketch_search.model.network import ClipEmbedder, Network, RetNetwork, find_clip

# The number of results that are measured, as in the report of the two-stage system.
TOP = 100
# The number of photos that are opened before CLIP embeds them.
_EMBEDDED = 64
# The number of pairs compared at once, and how often each speed is measured.
PAIRS, TRIES = 32, 5


def costs_of(network: RetNetwork) -> dict[str, float]:
    """Counts parameters, and by PyTorch's counter multiply-adds of a photo and of a pair; 0 if it compares no pairs."""
    side = network.config.image_size
    blank = torch.zeros(1, 3, side, side)

    def flops(work: Callable[[], object]) -> int:
        with FlopCounterMode(display=False) as counter:
            work()
        return int(counter.get_total_flops())

    with sdpa_kernel(SDPBackend.MATH), torch.inference_mode():
        of_photo, of_pair = flops(lambda: network.encode(blank, "photo")), 0
        if isinstance(network, Network):
            sketch = network.project(network.encode(blank, "sketch"), "sketch")
            photo = network.project(network.encode(blank, "photo"), "photo")
            of_pair = flops(lambda: network.relate(sketch, photo))
    parameters = sum(tensor.numel() for tensor in network.parameters())
    return {"M parameters": parameters / 1e6, "G a photo": of_photo / 2e9, "M a pair": of_pair / 2e6}


def speeds_of(network: RetNetwork) -> dict[str, float]:
    """Counts multiply-adds of a step forth and back, and measures how long a photo and a pair take on this CPU.

    A photo is encoded alone, a pair is one of PAIRS that are compared at once; the shortest of TRIES counts.
    """
    side = network.config.image_size
    blank, learning = torch.zeros(1, 3, side, side), copy.deepcopy(network).requires_grad_(True)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        torch.autograd.backward(learning.encode(blank, "photo").ret.sum())

    def milliseconds(work: Callable[[], object]) -> float:
        found = []
        for _ in range(TRIES):
            # CPU time of the thread: other programs lengthen it less than wall time.
            began = time.thread_time()
            work()
            found.append(time.thread_time() - began)
        return 1000 * min(found)

    with torch.inference_mode():
        of_pair, of_photo = 0.0, milliseconds(lambda: network.encode(blank, "photo"))
        if isinstance(network, Network):
            sketch = network.project(network.encode(blank, "sketch"), "sketch")
            photo = network.project(network.encode(blank, "photo"), "photo")
            photos = photo.rows(torch.zeros(PAIRS, dtype=torch.int64))
            of_pair = milliseconds(lambda: network.relate(sketch, photos)) / PAIRS
    return {"G to learn from a photo": counter.get_total_flops() / 2e9, "ms a photo": of_photo, "ms a pair": of_pair}


def search_in_two_stages(
    matcher: Matcher, corpus: Corpus, tokens: tuple[Tokens, Tokens], vectors: Floats, clusters: int, nprobe: int
) -> tuple[dict[str, NDArray[np.float64]], dict[str, float]]:
    """Searches by every sketch as the two-stage system does, and measures the first TOP results.

    The best ``nprobe`` clusters are opened, and more until they hold TOP photos. One cluster is the exhaustive search.
    Photos of other clusters count as lost: average precision (interpolated) and precision are over min(TOP, relevant).

    Args:
        tokens: of the corpus, from ``encoded``. vectors: (p, e), by which the photos are clustered by k-means.

    Returns "map_100" and "precision_100", (q,) each, and means over queries: the average precision over the relevant
    photos that were found, pairs, seconds of scoring, and the square distance of photos from their centroids, whose
    bend by clusters is the elbow.
    """
    # Imported late because it takes longer than all other imports of an evaluation.
    from sklearn.cluster import KMeans

    queries, gallery = tokens
    kmeans = KMeans(clusters, n_init=1, random_state=0).fit(unit(vectors))
    members = [np.flatnonzero(kmeans.labels_ == number) for number in range(clusters)]
    means = Tokens.cat([mean_tokens(gallery[rows]) for rows in members])
    sizes = np.array([len(rows) for rows in members])
    relevant, found = relevance(corpus), []
    for row in np.flatnonzero(relevant.any(axis=1)):
        began, sketch = time.perf_counter(), queries[row : row + 1]
        order = np.argsort(-matcher.plain_scores(sketch, means)[0]) if clusters > 1 else np.array([0])
        opened = max(nprobe, 1 + int(np.searchsorted(np.cumsum(sizes[order]), TOP)))
        rows = np.concatenate([members[number] for number in order[:opened]])
        best = np.argsort(-matcher.plain_scores(sketch, gallery[rows])[0], kind="stable")[:TOP]
        seconds = time.perf_counter() - began
        hits, least = relevant[row, rows[best]], min(TOP, int(relevant[row].sum()))
        precision = hits.cumsum() / np.arange(1, len(hits) + 1)
        area = (np.maximum.accumulate(precision[::-1])[::-1] * hits).sum()
        pairs = len(rows) + (clusters if clusters > 1 else 0)
        found.append((area / least, hits[:least].sum() / least, area / max(1, hits.sum()), pairs, seconds))
    values = np.array(found)
    names = (f"mAP@{TOP} over those found", "pairs", "seconds a query")
    costs = dict(zip(names, values[:, 2:].mean(axis=0).tolist(), strict=True))
    costs["distance from centroids"] = float(kmeans.inertia_) / len(gallery)
    return {"map_100": values[:, 0], "precision_100": values[:, 1]}, costs


def clip_vectors(photos: Sequence[Picture], source: str) -> tuple[Floats | None, str]:
    """Embeds photos by a CLIP on this disk: (p, e) float32, and its name; or None, and the reason."""
    if find_spec("open_clip") is None:
        return None, "open_clip is not installed"
    try:
        found = find_clip(source, download=False)
        embedder = ClipEmbedder(*found.open("cpu"), "cpu", found.model)
    except ModelError as error:
        return None, str(error)
    parts = (photos[start : start + _EMBEDDED] for start in range(0, len(photos), _EMBEDDED))
    return np.concatenate(
        [embedder.embed([embedder.prepare(open_image(picture.path)) for picture in part]) for part in parts]
    ), found.name


def mean_tokens(photos: Tokens) -> Tokens:
    """Computes the mean [Ret], and the mean tokens at the cells that most of the photos kept: a batch of one."""
    cells, counts = np.unique(photos.positions, return_counts=True)
    chosen = np.sort(cells[np.argsort(-counts, kind="stable")[: photos.positions.shape[1]]])
    patches = [photos.patches[photos.positions == cell].mean(axis=0) for cell in chosen]
    return Tokens(np.stack([photos.ret.mean(axis=0), *patches])[None], chosen[None])
