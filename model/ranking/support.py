"""Support: the scores of every method, mapped to where they can be averaged, and back.

A mean of distances, or of logits, would be ruled by the photos that are far from the sketch. In support, those weigh
little: it is between 0 and 1, and higher is better.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch

from model.network import Method

#: What scores are by: a method of a network, or "clip", the cosine of CLIP's vectors.
ScoredBy: TypeAlias = Method | Literal["clip"]

# [Ret] distances d are averaged as exp(-d^2 / RET_WIDTH), so that far photos weigh nothing.
RET_WIDTH = 0.2
# Fused scores f are averaged as exp((f - best) / FUSED_WIDTH), because their range depends on the fusion weight.
FUSED_WIDTH = 2.0
# CLIP's cosines c are averaged as exp((c - best) / CLIP_WIDTH), because they are close together, and how far up depends
# on the model. Pictures of different things often differ by so much; it was not measured.
CLIP_WIDTH = 0.05
_WIDTHS = {"fused": FUSED_WIDTH, "clip": CLIP_WIDTH}


def support_of(scores: torch.Tensor, best: torch.Tensor, method: ScoredBy) -> torch.Tensor:
    """Scores by ``method``, of any shape, as support in [0, 1]. best: the sketch's highest score."""
    if method == "ret":
        return torch.exp(-(scores**2) / RET_WIDTH)
    return scores if method == "rn" else torch.exp((scores - best) / _WIDTHS[method])


def scores_of(support: torch.Tensor, best: torch.Tensor, method: ScoredBy) -> torch.Tensor:
    """The scores by ``method`` that have this support: the inverse of ``support_of``."""
    if method == "ret":
        return -torch.sqrt((-RET_WIDTH * support.log()).clamp(min=0))
    if method == "rn":
        return support
    return best + _WIDTHS[method] * support.clamp(min=torch.finfo(support.dtype).tiny).log()
