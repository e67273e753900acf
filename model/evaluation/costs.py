"""Counts what a network costs, and what a search in two stages finds and costs."""

import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from model.datasets import Corpus
from model.engine import Method, Tokens, unit
from model.evaluation.figures import relevance
from model.matcher import Matcher
from model.network import Network, RetNetwork

# Results that count, as in the report of the two-stage system.
TOP = 100


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


def search_in_two_stages(
    matcher: Matcher, corpus: Corpus, tokens: tuple[Tokens, Tokens], method: Method, clusters: int, nprobe: int
) -> tuple[dict[str, NDArray[np.float64]], dict[str, float]]:
    """Searches by every sketch among the best clusters of [Ret] by k-means, and measures the first TOP results.

    One cluster is the exhaustive search. Photos of other clusters count as lost: average precision (interpolated) and
    precision are over min(TOP, relevant). tokens: of the corpus, from ``encoded``.

    Returns "map_100" and "precision_100", (q,) each, and means over queries: pairs, milliseconds of scoring, and the
    square distance of photos from their centroids, whose bend by clusters is the elbow.
    """
    # Imported late because it takes longer than all other imports of an evaluation.
    from sklearn.cluster import KMeans

    queries, gallery = tokens
    kmeans = KMeans(clusters, n_init=1, random_state=0).fit(unit(gallery.ret))
    members = [np.flatnonzero(kmeans.labels_ == number) for number in range(clusters)]
    means = Tokens.cat([mean_tokens(gallery[rows]) for rows in members])
    relevant, found = relevance(corpus), []
    for row in np.flatnonzero(relevant.any(axis=1)):
        began, sketch = time.perf_counter(), queries[row : row + 1]
        order = np.argsort(-matcher.scores(sketch, means, method)[0]) if clusters > 1 else [0]
        rows = np.concatenate([members[number] for number in order[:nprobe]])
        best = np.argsort(-matcher.scores(sketch, gallery[rows], method)[0], kind="stable")[:TOP]
        seconds = time.perf_counter() - began
        hits, least = relevant[row, rows[best]], min(TOP, int(relevant[row].sum()))
        precision = hits.cumsum() / np.arange(1, len(hits) + 1)
        area = (np.maximum.accumulate(precision[::-1])[::-1] * hits).sum()
        pairs = len(rows) + (clusters if clusters > 1 else 0)
        found.append((area / least, hits[:least].sum() / least, pairs, 1000 * seconds))
    values = np.array(found)
    costs = {"pairs": float(values[:, 2].mean()), "ms": float(values[:, 3].mean())}
    costs["distance from centroids"] = float(kmeans.inertia_) / len(gallery)
    return {"map_100": values[:, 0], "precision_100": values[:, 1]}, costs


def mean_tokens(photos: Tokens) -> Tokens:
    """Computes the mean [Ret], and the mean tokens at the cells that most of the photos kept: a batch of one."""
    cells, counts = np.unique(photos.positions, return_counts=True)
    chosen = np.sort(cells[np.argsort(-counts, kind="stable")[: photos.positions.shape[1]]])
    patches = [photos.patches[photos.positions == cell].mean(axis=0) for cell in chosen]
    return Tokens(np.stack([photos.ret.mean(axis=0), *patches])[None], chosen[None])
