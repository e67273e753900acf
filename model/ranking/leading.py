"""Photos that a person likes, or that show what a word names, lead a ranking.

How similar two photos are is far more certain than how similar a sketch is to a photo. So a query with liked photos
goes to where they are among all photos, and the sketch only decides between what is there.

WIDTH and WORD_LEAD were chosen on every other one of 1,000 ordinary photos, with sketches that were not trained on.
With WIDTH from 3 to 6, or WORD_LEAD from 0.7 to 0.9, a sketch and a word together find more than each of them alone;
with 2 and 0.7 the word alone found more. All of that was the vocabulary; scores by CLIP are logits, too.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from model.ranking.diffusion import ScoredBy, scores_of, support_of

# Weight of the mean of the liked photos beside the sketch, which has 1. From 2 on, it hardly matters on validation
# classes. The relation network's scores, mixed in, made rankings worse there.
PULL = 4.0
# The share of the support that comes, after diffusion, from the likeness to the most similar liked photo. The mean of
# several liked photos may be like none of them.
LEAD = 0.5
# The share of the support that is the word's.
WORD_LEAD = 0.8
# Support of a word falls by e for so much less of its score than the best photo has.
WIDTH = 4.0
# Photos whose [Ret] stands for a word where there is neither sketch nor liked photo: the best ones by the word. On
# ordinary photos, 1 to 10 of them found more than the word's scores alone, and differed by less than chance.
EXAMPLES = 5
# The best of _FITS_FROM photos has a score of at least 0 by a word that fits. The best of more photos has a higher one,
# because a photo that does not show the word reaches more by chance then. Both numbers were chosen so that a word of
# one to three photos is seldom said not to fit.
_FITS_FROM = 50
_FITS_SLOPE = 2 / 3


def pulled(sketch: torch.Tensor | None, liked: torch.Tensor) -> torch.Tensor:
    """The [Ret] of a query with liked photos, after Rocchio (1971).

    It is the sum of the sketch's normalised [Ret] and PULL times the liked photos' mean one, normalised.

    Args:
        sketch: (1, d) retrieval token; None where there is no sketch.
        liked: (l, d) retrieval tokens of photos, at least one.

    Returns (1, d) float32.
    """
    photos = F.normalize(F.normalize(liked.float(), dim=1).mean(dim=0, keepdim=True), dim=1)
    return photos if sketch is None else F.normalize(F.normalize(sketch.float(), dim=1) + PULL * photos, dim=1)


def led(scores: torch.Tensor, likeness: torch.Tensor) -> torch.Tensor:
    """Scores by [Ret], led by the photos that are liked.

    scores: (p,) by "ret", with p at least 1. likeness: (p,) as ``likeness_to`` gives it; below 0 it counts as 0.
    Returns (p,) float32 on the CPU, by "ret": at most 0.
    """
    return _led(scores.to("cpu", torch.float32), likeness.clamp(min=0), LEAD, "ret")


def led_by_word(scores: torch.Tensor, words: torch.Tensor, method: ScoredBy) -> torch.Tensor:
    """Scores (m,) of photos by ``method``, led by a word with this support (m,); in the range of ``method``."""
    return _led(scores, words, WORD_LEAD, method) if len(scores) else scores


def _led(scores: torch.Tensor, other: torch.Tensor, lead: float, method: ScoredBy) -> torch.Tensor:
    """Mixes support: with s_i that of photo i, divided by the highest one, the new one is (1 - lead) s_i + lead o_i."""
    best = scores.max()
    support = support_of(scores, best, method)
    support = support / support.max().clamp(min=torch.finfo(torch.float32).tiny)
    # + 0.0 makes 0 of -0.
    return scores_of((1 - lead) * support + lead * other, best, method) + 0.0


def named(scores: torch.Tensor, best: torch.Tensor) -> torch.Tensor:
    """The support of photos by a word, (p,) in 0..1: how much they show what it names.

    With w_i the score of photo i by the word, its support is exp((w_i - best) / WIDTH).

    scores: (p,) logits. best: the highest score of a photo that may be found; others may be above it.
    """
    return torch.exp((scores - best).clamp(max=0) / WIDTH)


def fits(best: float, photos: int) -> bool:
    """True if any of so many photos is likely to show what a word of the vocabulary names.

    best: the highest score of them by the word.
    """
    return photos > 0 and best >= _FITS_SLOPE * math.log(photos / _FITS_FROM)
