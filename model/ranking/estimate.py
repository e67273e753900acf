"""What a sketch's scores of photos are likely to be where only some of the photos were scored.

[Ret] tells two things of every photo at next to no cost: how far it is from the sketch, and which other photos it is
like. A line leads from the distance to the score, and photos that are alike lie off that line alike.
"""

from __future__ import annotations

import torch

from model.network import Method
from model.ranking.diffusion import centred

# So much likeness to scored photos counts as much as the line. On validation classes 0.1 to 2 differ less than chance.
RESERVE = 0.5
# Logits of scores that float32 has rounded to 0 or 1 are not infinite.
MARGIN = 1e-7


def estimated(
    scores: torch.Tensor,
    known: torch.Tensor,
    distances: torch.Tensor,
    ret: torch.Tensor,
    threshold: float,
    method: Method,
) -> torch.Tensor:
    """The scores that are known, and in place of the others what they are likely to be.

    With x_j the logits of known relation scores (fused scores as they are), l the line by least squares from the
    distances d_j to them, which never rises, and A_ij the likeness of two photos as in the diffusion,

        x_i = l(d_i) + sum_j A_ij (x_j - l(d_j)) / (RESERVE + sum_j A_ij), j known.

    Args:
        scores: (p,) float32 by ``method``, "rn" or "fused", higher is better; read where ``known``, (p,) bool.
        distances: (p,) of the photos' [Ret] from the sketch's. ret: (p, d) retrieval tokens of the photos.
        threshold: as in the diffusion.

    Returns:
        (p,) float32; with nothing known, in the order of the distances.
    """
    x, d = scores[known].double(), distances.double()
    if method == "rn":
        x = x.clamp(MARGIN, 1 - MARGIN).logit()
    line = _line(d[known], x, d)
    near, off = centred(ret), (x - line[known]).float()
    alike = (near[~known] @ near[known].T - threshold).clamp_(min=0)
    likely = line[~known] + (alike @ off) / (RESERVE + alike.sum(dim=1))
    if method == "rn":
        likely = likely.sigmoid()
    return scores.masked_scatter(~known, likely.float())


def _line(distances: torch.Tensor, values: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Least squares through the points, level where it would rise; minus the distance where there are none."""
    if not len(values):
        return -at
    off, up = distances - distances.mean(), values - values.mean()
    spread = (off**2).sum()
    slope = ((off * up).sum() / spread).clamp(max=0) if spread > 0 else torch.zeros_like(spread)
    return values.mean() + slope * (at - distances.mean())
