"""The losses of Sketch-an-Anchor: InfoNCE (eq. 1) and the anchored contrastive loss (eqs. 3 and 4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def info_nce(sketches: torch.Tensor, photos: torch.Tensor, temperature: float) -> torch.Tensor:
    """InfoNCE between the vectors (n, d) of sketches and photos that are paired by row (eq. 1).

    Each sketch has to find its photo among those of the batch, by cosines.
    """
    cosines = F.normalize(sketches, dim=1) @ F.normalize(photos, dim=1).T
    return F.cross_entropy(cosines / temperature, torch.arange(len(cosines)))


def anchored_contrastive_loss(
    vectors: torch.Tensor, others: torch.Tensor, similarities: torch.Tensor, temperature: float, sharpness: float
) -> torch.Tensor:
    """The cross-entropy between how alike anchors are and how alike vectors are (eqs. 3 and 4).

    Against anchors (eq. 3) ``others`` are all anchors; against photos (eq. 4) they are the photos of the batch.

    Args:
        vectors: (n, d), hidden representations.
        others: (m, d).
        similarities: (n, m), of the anchor of each vector's class with each anchor, or with that of each photo's class.
        temperature: of the cosines between ``vectors`` and ``others``.
        sharpness: what the similarities are multiplied by before their softmax; the equations have 1.
    """
    target = (similarities * sharpness).softmax(dim=1)
    cosines = F.normalize(vectors, dim=1) @ F.normalize(others, dim=1).T
    return -(target * (cosines / temperature).log_softmax(dim=1)).sum(dim=1).mean()
