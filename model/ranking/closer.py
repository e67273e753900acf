"""Which of two photos is closer to the one that somebody remembers: what answers say, and what to ask next."""

from __future__ import annotations

import torch
import torch.nn.functional as F

# A photo at the distance d by [Ret] is the one that was drawn with a probability in proportion to exp(-d / WIDTH).
# CERTAINTY is how surely people find the photo closer that is more like it by [Ret]. Both were chosen on validation
# classes.
WIDTH = 0.06
CERTAINTY = 4.0
# The likeliest photos that a question is chosen for, and of which its second photo is one.
LIKELY = 200
ASKED_OF = 20


def answered(scores: torch.Tensor, closer: torch.Tensor, farther: torch.Tensor) -> torch.Tensor:
    """Scores by [Ret] after some answers.

    Let a_ik and b_ik be the likeness of photo i to the closer and to the farther photo of the k-th answer. If photo i
    is the one that is remembered, the answer is this one with probability sigmoid(CERTAINTY (a_ik - b_ik)). By Bayes'
    rule its score s_i, of which exp(s_i / WIDTH) is its probability but for a factor, becomes
    s_i + WIDTH sum_k log sigmoid(CERTAINTY (a_ik - b_ik)).

    Args:
        scores: (p,) by "ret". closer, farther: (p, k) likeness, cosines from -1 to 1.

    Returns:
        (p,) float32.
    """
    return scores.float() + WIDTH * F.logsigmoid(CERTAINTY * (closer - farther)).sum(dim=1)


def next_question(scores: torch.Tensor, likeness: torch.Tensor) -> tuple[int, int] | None:
    """The two photos whose comparison tells most about which photo is the one that is remembered.

    The first is the likeliest photo that was in no question yet, so that whoever has luck is done. The second is that
    of the next ones whose answer has the highest mutual information with the remembered photo.

    Args:
        scores: (m,) of the likeliest photos. likeness: (m, f) cosines of these photos and of those that may be asked
            about, which are best first.

    Returns:
        Which two of the f photos; None where there are fewer than two.
    """
    if likeness.shape[1] < 2:
        return None
    probability = F.softmax(scores.double() / WIDTH, dim=0)
    answer = torch.sigmoid(CERTAINTY * (likeness[:, :1] - likeness[:, 1:]).double())
    told = _entropy(probability @ answer) - probability @ _entropy(answer)
    return 0, 1 + int(told.argmax())


def _entropy(chance: torch.Tensor) -> torch.Tensor:
    """Of the answer to a question, in nats: chance is that of one of the two answers."""
    entropy: torch.Tensor = torch.special.entr(chance) + torch.special.entr(1 - chance)
    return entropy
