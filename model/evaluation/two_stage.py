"""Measures a search in two stages: the clusters of a gallery by their mean tokens, then the photos of the best ones."""

import time

import numpy as np
from numpy.typing import NDArray

from model.datasets import Corpus
from model.engine import Method, Tokens, unit
from model.evaluation.figures import relevance
from model.matcher import Matcher

# Results that count, as in the report of the two-stage system.
TOP = 100


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
