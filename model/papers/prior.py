"""Makes the prior of a trained network (``model.engine.Prior``), and chooses how much it counts."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from sketch_search.model.datasets import TRAINED, UNSEEN, Corpus, Task, some_of_each
from sketch_search.model.engine import Prior, unit
from sketch_search.model.errors import ModelError
from sketch_search.model.evaluation import HARMONIC, encode_both, encode_pictures, measure, ret_matcher, trained_matcher
from sketch_search.model.network import Network

PROTOTYPES = 256
SKETCHES_PER_CLASS = 10
# The number of training photos from which the level is computed.
LEVEL_PHOTOS = 500
# Weights of the prior that are tried.
RET_WEIGHTS = (0.0, 0.5, 1.0, 1.5, 2.0)
RELATION_WEIGHTS = (0.0, 5.0, 10.0, 15.0, 20.0, 30.0)
# The prior's weight in relation scores is chosen on every n-th query only, because pairs are slow.
RELATION_EVERY = 4
# The precision@10 that trained classes may lose.
MOST_LOSS = 0.02
_FIGURE = "precision_10"


def with_prior(
    network: Network, training: Corpus, further: Corpus, ret_weight: float, relation_weight: float
) -> Network:
    """Returns a copy of the network with the prior of its training sketches: k-means over their [Ret]."""
    plain = network.prior_replaced(None)
    matcher = ret_matcher(plain)
    some = some_of_each(training.sketches + further.sketches, SKETCHES_PER_CLASS)
    sketches = encode_pictures(matcher, some, "sketch")
    # Equal sketches cannot be the centres of two clusters.
    directions = np.unique(unit(sketches.ret).round(4), axis=0)
    # This is imported late because it takes longer than all other imports of a training.
    from sklearn.cluster import KMeans

    clusters = KMeans(min(PROTOTYPES, len(directions)), n_init=1, random_state=0).fit(directions)
    prior = Prior(unit(clusters.cluster_centers_.astype(np.float32)), 0.0, ret_weight, relation_weight)
    photos = training.photos + further.photos
    shown = encode_pictures(matcher, photos[:: max(1, len(photos) // LEVEL_PHOTOS)], "photo")
    return plain.prior_replaced(replace(prior, level=float(prior(shown.ret).mean())))


def with_chosen_prior(
    network: Network, training: Corpus, further: Corpus, large: Task, dtype: torch.dtype
) -> tuple[Network, dict[str, float]]:
    """Chooses the prior by the harmonic mean of precision@10, where trained classes lose at most MOST_LOSS."""
    other = with_prior(network, training, further, 0.0, 0.0)
    prior = other.prior
    if prior is None or not {TRAINED, UNSEEN} <= large.groups.keys():
        raise ModelError("a prior is chosen between trained classes and others; the gallery lacks one of them")
    matcher = trained_matcher(other, dtype)
    queries, gallery = encode_both(matcher, large.corpus)
    priors = prior(gallery.ret)
    cosines = 1 - matcher.ret_distances(queries, gallery) ** 2 / 2
    logits = matcher.relation_logits(queries[::RELATION_EVERY], gallery)
    ret_weight, *of_ret = best_weight(cosines, priors, RET_WEIGHTS, large)
    relation_weight, *of_relation = best_weight(logits, priors, RELATION_WEIGHTS, large.subsample(RELATION_EVERY, 1))
    figures: dict[str, float] = {}
    for name, (before, after) in (("ret", of_ret), ("rn", of_relation)):
        figures |= {f"harmonic {name}": round(before, 4), f"harmonic {name}, prior": round(after, 4)}
    return other.prior_replaced(replace(prior, ret_weight=ret_weight, relation_weight=relation_weight)), figures


def best_weight(
    scores: NDArray[np.floating], priors: NDArray[np.floating], weights: Sequence[float], large: Task
) -> tuple[float, float, float]:
    """Finds the best of the weights. Returns it, and the harmonic means without it and with it."""
    found = measure(large, {str(weight): scores - weight * priors for weight in weights}).figures
    trained = {weight: groups[TRAINED][_FIGURE] for weight, groups in found.items()}
    harmonic = {weight: groups[HARMONIC][_FIGURE] for weight, groups in found.items()}
    first = str(weights[0])
    allowed = [weight for weight in found if trained[weight] >= trained[first] - MOST_LOSS]
    best = max(allowed, key=lambda weight: harmonic[weight])
    return float(best), harmonic[first], harmonic[best]
