"""Support: the scores of every method, mapped to where they can be averaged, and back.

A mean of distances, or of logits, would be ruled by the photos that are far from the sketch. In support, those weigh
little: it is between 0 and 1, and higher is better.
"""

from __future__ import annotations

import torch

from model.network import Method

# [Ret] distances d are averaged as exp(-d^2 / RET_WIDTH), so that far photos weigh nothing.
RET_WIDTH = 0.2
# Fused scores f are averaged as exp((f - best) / FUSED_WIDTH), because their range depends on the fusion weight.
FUSED_WIDTH = 2.0


def support_of(scores: torch.Tensor, best: torch.Tensor, method: Method) -> torch.Tensor:
    """Scores by ``method``, of any shape, as support in [0, 1]. best: the sketch's highest score, which fused needs."""
    if method == "ret":
        return torch.exp(-(scores**2) / RET_WIDTH)
    return scores if method == "rn" else torch.exp((scores - best) / FUSED_WIDTH)


def scores_of(support: torch.Tensor, best: torch.Tensor, method: Method) -> torch.Tensor:
    """The scores by ``method`` that have this support: the inverse of ``support_of``."""
    if method == "ret":
        return -torch.sqrt((-RET_WIDTH * support.log()).clamp(min=0))
    return support if method == "rn" else best + FUSED_WIDTH * support.clamp(min=torch.finfo(support.dtype).tiny).log()
