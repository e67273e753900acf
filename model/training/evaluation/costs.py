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

from sketch_search.model.engine import Floats, Tokens, unit
from sketch_search.model.errors import ModelError
from sketch_search.model.images import open_image
from sketch_search.model.matcher import Matcher
from sketch_search.model.search import Plan, Query, gallery_of, rank
from sketch_search.model.training.corpus import Corpus, Picture
from sketch_search.model.training.evaluation.figures import relevance
from sketch_search.model.training.network import ClipEmbedder, Network, RetNetwork, find_clip

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
    """Counts a step's multiply-adds, and times a photo alone, and a pair of PAIRS at once, by the shortest of TRIES."""
    side = network.config.image_size
    blank, learning = torch.zeros(1, 3, side, side), copy.deepcopy(network).requires_grad_(True)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        torch.autograd.backward(learning.encode(blank, "photo").ret.sum())

    def milliseconds(work: Callable[[], object]) -> float:
        times = []
        for _ in range(TRIES):
            # CPU time of the thread: other programs lengthen it less than wall time.
            began = time.thread_time()
            work()
            times.append(time.thread_time() - began)
        return 1000 * min(times)

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

    Figures are over min(TOP, relevant), with photos of other than the ``nprobe`` best clusters, or so many that they
    hold TOP, as lost. tokens: of ``encode_both``. vectors: (p, e), for k-means. Returns "map_100" and "precision_100",
    (q,), and means: average precision by the report's code, pairs, seconds, square distance from centroids, and the
    share of photos that are of the most frequent class of their cluster.
    Raises ModelError for fewer photos than clusters.
    """
    queries, photos = tokens
    if len(photos) < clusters:
        raise ModelError(f"{len(photos)} photos cannot make {clusters} clusters; name a folder of more photos")
    points = unit(vectors)
    gallery = gallery_of(photos, matcher, clusters, points)
    plan, relevant, rows = Plan.two_stage(TOP, nprobe), relevance(corpus), []
    for row in np.flatnonzero(relevant.any(axis=1)):
        # CPU time: other programs lengthen it less than wall time.
        began = time.process_time()
        query = Query(plan.method, gallery.clusters.mean, queries[row : row + 1], plain=True)
        ranking = rank(gallery, matcher, query, plan)
        seconds = time.process_time() - began
        hits, least = relevant[row, ranking.photos.ids[:TOP]], min(TOP, int(relevant[row].sum()))
        precision = hits.cumsum() / np.arange(1, len(hits) + 1)
        area = (np.maximum.accumulate(precision[::-1])[::-1] * hits).sum()
        by_report = (precision * hits).sum() / max(1, hits.sum())
        # Of a single cluster nothing is chosen.
        pairs = ranking.pairs - (clusters == 1)
        rows.append((area / least, hits[:least].sum() / least, by_report, pairs, seconds))
    values = np.array(rows)
    names = (f"mAP@{TOP} by the report's code", "pairs", "CPU seconds a query")
    costs = dict(zip(names, values[:, 2:].mean(axis=0).tolist(), strict=True))
    members = np.split(points[gallery.ids], gallery.clusters.ends[:-1])
    spread = sum(float(((members_of - members_of.mean(axis=0)) ** 2).sum()) for members_of in members)
    kinds = np.split(np.array([photo.label for photo in corpus.photos])[gallery.ids], gallery.clusters.ends[:-1])
    most = sum(int(np.unique(members_of, return_counts=True)[1].max()) for members_of in kinds)
    costs |= {"distance from centroids": spread / len(photos), "purity": most / len(photos)}
    return {"map_100": values[:, 0], "precision_100": values[:, 1]}, costs


def clip_vectors(photos: Sequence[Picture], source: str) -> tuple[Floats | None, str]:
    """Embeds photos by a CLIP on this disk: (p, e) float32, and its name; or None, and the reason."""
    if find_spec("open_clip") is None:
        return None, "open_clip is not installed"
    try:
        clip = find_clip(source, download=False)
        embedder = ClipEmbedder(*clip.open("cpu"), "cpu", clip.model)
    except ModelError as error:
        return None, str(error)
    parts = (photos[start : start + _EMBEDDED] for start in range(0, len(photos), _EMBEDDED))
    return np.concatenate(
        [embedder.embed([embedder.prepare(open_image(picture.path)) for picture in part]) for part in parts]
    ), clip.name
