"""The calibration of a network, chosen on validation classes at the end of its training."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch

from model.datasets import Corpus
from model.engine import Calibration, Floats, Method, sigmoid
from model.errors import ModelError
from model.evaluation.figures import relevance
from model.evaluation.scoring import encoded
from model.matcher import Matcher
from model.metrics import category_metrics
from model.network import RetNetwork, TorchEngine, fastest_dtype
from model.ranking import diffused

Calibrated = TypeVar("Calibrated", bound=RetNetwork)
BOTH: tuple[Method, ...] = ("rn", "ret")
# The weights of the fusion, and the thresholds of the diffusion, that are tried.
FUSIONS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
DIFFUSIONS = (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5)


def trained_matcher(
    network: RetNetwork, dtype: torch.dtype = torch.float32, methods: Sequence[Method] = BOTH
) -> Matcher:
    """Copies a network in training into a matcher that scores by the methods that are being trained."""
    calibration = Calibration(methods=tuple(methods), best_method=methods[0])
    return Matcher(TorchEngine(network.with_calibration(calibration).set_precision(dtype)), "untracked", variants=1)


def ret_matcher(network: RetNetwork) -> Matcher:
    """Copies a network into a matcher that scores by [Ret], in the precision that is fastest on this CPU."""
    return trained_matcher(network, fastest_dtype(network, torch.device("cpu")), methods=("ret",))


def calibrated(
    network: Calibrated, validation: Corpus, dtype: torch.dtype = torch.float32, methods: Sequence[Method] = BOTH
) -> tuple[Calibrated, dict[str, float]]:
    """Chooses the fusion weight, the best method and the threshold of diffusion by mAP@all on the validation classes.

    Returns a copy of the network with its calibration, and the mAP@all of each method and of the best one diffused.
    Raises ModelError without validation pictures.
    """
    if not validation.sketches or not validation.photos:
        raise ModelError("methods are chosen on validation classes; there are none")
    matcher = trained_matcher(network, dtype, methods)
    queries, gallery = encoded(matcher, validation)
    relevant = relevance(validation)

    def figure(scores: Floats) -> float:
        return category_metrics(scores, relevant)["map_all"]

    scores: dict[Method, Floats] = {}
    fusion = None
    if "rn" in methods:
        logits = matcher.relation_logits(queries, gallery)
        scores["rn"] = sigmoid(logits)
    if "ret" in methods:
        distances = matcher.ret_distances(queries, gallery)
        scores["ret"] = -distances
    if len(scores) == 2:
        fusion = max(FUSIONS, key=lambda weight: figure(logits - np.float32(weight) * distances))
        scores["fused"] = logits - np.float32(fusion) * distances
    figures = {str(method): figure(matrix) for method, matrix in scores.items()}
    after = {(m, c): figure(diffused(matrix, gallery.ret, c, m)) for m, matrix in scores.items() for c in DIFFUSIONS}
    best, diffusion = max(after, key=lambda chosen: after[chosen])
    calibration = Calibration(methods=tuple(scores), best_method=best, fusion=fusion, diffusion=diffusion)
    all_figures = figures | {f"{best}+diffusion": after[best, diffusion]}
    return network.with_calibration(calibration), {name: round(value, 4) for name, value in all_figures.items()}
