"""Words: photos that show what a word names lead a ranking.

WIDTH and LEAD were chosen on every other one of 1,000 ordinary photos, with sketches that were not trained on. With
WIDTH from 3 to 6, or LEAD from 0.7 to 0.9, a sketch and a word together find more than each of them alone; with 2 and
0.7 the word alone found more. All of that was the vocabulary; scores by CLIP are logits, too, and taken alike.
"""

from __future__ import annotations

import math

import torch

from model.ranking.support import ScoredBy, scores_of, support_of

# Photos whose [Ret] stands for a word where there is neither sketch nor liked photo: the best ones by the word. On
# ordinary photos, 1 to 10 of them found more than the word's scores alone, and differed by less than chance.
EXAMPLES = 5
# Support of a word falls by e for so much less of its score than the best photo has.
WIDTH = 4.0
# How much of the support is the word's.
LEAD = 0.8


# The best of _FITS_FROM photos has a score of at least 0 by a word that fits. The best of more photos has a higher one,
# because a photo that does not show the word reaches more by chance then. Both numbers were chosen so that a word of
# one to three photos is seldom said not to fit: docs/using.md has the figures.
_FITS_FROM = 50
_FITS_SLOPE = 2 / 3


def fits(best: float, photos: int) -> bool:
    """Whether any of so many photos is likely to show what a word of the vocabulary names.

    best: the highest score of them by the word.
    """
    return photos > 0 and best >= _FITS_SLOPE * math.log(photos / _FITS_FROM)


def named(scores: torch.Tensor, best: torch.Tensor) -> torch.Tensor:
    """How much photos show what a word names: their support by it, (p,) in 0..1.

    With w_i the score of photo i by the word, its support is exp((w_i - best) / WIDTH).

    Args:
        scores: (p,) logits. best: the highest score of a photo that may be found; others may be above it.
    """
    return torch.exp((scores - best).clamp(max=0) / WIDTH)


def led_by_word(scores: torch.Tensor, words: torch.Tensor, method: ScoredBy) -> torch.Tensor:
    """Photos' scores (m,) led by a word with this support (m,).

    With s_i the support of photo i by its score (``model.ranking.support``), divided by the highest one, and w_i its
    support by the word, its new support is (1 - LEAD) s_i + LEAD w_i. The new scores are in the range of ``method``.
    """
    if not len(scores):
        return scores
    best = scores.max()
    support = support_of(scores, best, method)
    support = support / support.max().clamp(min=torch.finfo(torch.float32).tiny)
    mixed = (1 - LEAD) * support + LEAD * words
    # + 0.0 makes 0 of -0.
    return scores_of(mixed, best, method) + 0.0
