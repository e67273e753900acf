"""Feedback: photos that a person likes lead the ranking.

How similar two photos are is far more certain than how similar a sketch is to a photo. So a query with liked photos
goes to where they are among all photos, and the sketch only decides between what is there.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from model.ranking.support import scores_of, support_of

# Weight of the mean of the liked photos beside the sketch, which has 1. From 2 on, it hardly matters on validation
# classes. The relation network's scores, mixed in, made rankings worse there.
PULL = 4.0
# How much of the support, after diffusion, comes from the likeness to the most similar liked photo. The mean of several
# liked photos may be like none of them.
LEAD = 0.5


def pulled(sketch: torch.Tensor | None, liked: torch.Tensor) -> torch.Tensor:
    """The [Ret] of a query with liked photos, after Rocchio (1971).

    It is the sum of the sketch's normalised [Ret] and PULL times the liked photos' mean one, normalised.

    Args:
        sketch: (1, d) retrieval token; None where there is no sketch.
        liked: (l, d) retrieval tokens of photos, at least one.

    Returns:
        (1, d) float32.
    """
    photos = F.normalize(F.normalize(liked.float(), dim=1).mean(dim=0, keepdim=True), dim=1)
    return photos if sketch is None else F.normalize(F.normalize(sketch.float(), dim=1) + PULL * photos, dim=1)


def led(scores: torch.Tensor, likeness: torch.Tensor) -> torch.Tensor:
    """Scores by [Ret], led by the photos that are liked.

    Let s_i be the support of photo i as the diffusion averages it (``model.ranking.support``), divided by the highest
    one, and a_i its likeness to the most similar liked photo, or 0 where that is negative. Its new support is
    (1 - LEAD) s_i + LEAD a_i.

    Args:
        scores: (p,) by "ret", with p at least 1. likeness: (p,) as ``Likeness.to`` gives it.

    Returns:
        (p,) float32 on the CPU, by "ret": at most 0.
    """
    scores = scores.to("cpu", torch.float32)
    best = scores.max()
    support = support_of(scores, best, "ret")
    support = support / support.max().clamp(min=torch.finfo(torch.float32).tiny)
    # + 0.0 makes 0 of -0.
    return scores_of((1 - LEAD) * support + LEAD * likeness.clamp(min=0), best, "ret") + 0.0
