"""Makes clusters of photos by k-means, as FAISS does it, and the tokens that represent a cluster."""

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from sketch_search.model.engine import Floats, Tokens

SEED = 1234
ITERATIONS = 25
# The most patches of a grid, since an index keeps a position in one byte. Patches that a smaller grid does not have are
# in no photo, and so never chosen.
MAX_PATCHES = 256
# The most photos for each cluster that k-means trains on, as in FAISS. More would hardly move a centroid, and cost
# time in every iteration.
POINTS_PER_CLUSTER = 256


def default_clusters(photos: int) -> int:
    """Returns about sqrt(photos), since ranking all clusters then costs about as much as scoring one cluster."""
    return max(1, round(math.sqrt(photos)))


def training_points(points: int, count: int) -> npt.NDArray[np.int64]:
    """Chooses the points that k-means is trained on, in that order. FAISS would choose the same, of all in memory."""
    most = count * min(math.ceil(points / count), POINTS_PER_CLUSTER)
    if points <= most:
        return np.arange(points)
    import faiss

    order = np.empty(points, np.int32)
    faiss.rand_perm(faiss.swig_ptr(order), points, SEED)  # type: ignore[attr-defined]
    return order[:most].astype(np.int64)


def train_centroids(points: Floats, count: int) -> Floats:
    """Computes the centroids (count, e) of points (m, e) of unit length by k-means; every run gives the same."""
    import faiss

    width = points.shape[1]
    per_cluster = math.ceil(len(points) / count)
    kmeans = faiss.Kmeans(
        width,
        count,
        niter=ITERATIONS,
        seed=SEED,
        min_points_per_centroid=1,
        max_points_per_centroid=per_cluster,
        gpu=faiss.get_num_gpus() > 0,
    )
    kmeans.train(np.ascontiguousarray(points))
    return np.asarray(kmeans.centroids, np.float32).reshape(count, width)


def assign(embeddings: Floats, centroids: Floats) -> npt.NDArray[np.int64]:
    """Finds each embedding's nearest centroid by Euclidean distance, (m,) int64; of equal ones the lower number."""
    import faiss

    index: faiss.Index = faiss.IndexFlatL2(centroids.shape[1])
    if faiss.get_num_gpus() > 0:
        index = faiss.index_cpu_to_all_gpus(index)
    index.add(np.ascontiguousarray(centroids))
    _, nearest = index.search(np.ascontiguousarray(embeddings), 1)
    return np.asarray(nearest[:, 0], np.int64)


def cluster(vectors: Floats, count: int) -> npt.NDArray[np.int64]:
    """Clusters vectors (p, e) of unit length as an index does: (p,) the cluster of each, none of them empty."""
    labels = assign(vectors, train_centroids(vectors[training_points(len(vectors), count)], count))
    return np.unique(labels, return_inverse=True)[1]


def mean_tokens(blocks: Iterable[Tokens]) -> Tokens:
    """Computes a cluster's mean tokens, a batch of one: at the k cells that most photos kept, lower ones first."""
    photos, kept, ret = 0, 0, np.zeros(0)
    sums, counts = np.empty((MAX_PATCHES, 0), np.float32), np.zeros(MAX_PATCHES, np.int64)
    for block in blocks:
        if not photos:
            kept, width = block.positions.shape[1], block.features.shape[2]
            ret, sums = np.zeros(width), np.zeros((MAX_PATCHES, width), np.float32)
        photos += len(block)
        ret += block.ret.sum(axis=0, dtype=np.float64)
        for photo, cells in zip(block.patches, block.positions, strict=True):
            # A photo's patches are all different, so this adds the token of each once.
            sums[cells] += photo
            counts[cells] += 1
    chosen = np.sort(np.argsort(-counts, kind="stable")[:kept])
    means = sums[chosen] / counts[chosen, None].astype(np.float32)
    first = (ret / photos).astype(np.float32)[None]
    return Tokens(np.concatenate([first, np.asarray(means, np.float32)])[None], chosen[None])
