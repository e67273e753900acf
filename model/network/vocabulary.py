"""The vocabulary of a network: words, each with a direction among the photos' [Ret]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

# How far a photo's other words count against a word: 0 ranks photos by the word's logit, 1 by its probability among
# all words. Between them is best where photos show one thing, and where they show two or three: on training photos that
# the fit did not see, alone and mixed, mean average precision was 0.932, 0.818 and 0.727 with it, 0.927, 0.807 and
# 0.713 with 0, and 0.933, 0.809 and 0.724 with 1.
SHARE = 0.5


class Vocabulary(nn.Module):
    """What a picture shows, in words.

    With r the [Ret] of a photo, normalised, z_w = d_w . r + b_w is the logit of word w, and the softmax over all words
    is how probable each is. A photo's score for a word, by which photos are compared, is

        score_w = z_w - SHARE log(sum_v exp(z_v)).

    A sketch may show what no word names. So its guesses are a softmax over guess_scale z_w for all words and guess_none
    for none of them.

    Attributes:
        directions: (w, d). biases: (w,).
        guess_scale, guess_none: chosen on sketches that were not trained on.
    """

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.directions: torch.Tensor
        self.biases: torch.Tensor
        self.guess_scale: torch.Tensor
        self.guess_none: torch.Tensor
        self.register_buffer("directions", torch.zeros(words, width))
        self.register_buffer("biases", torch.zeros(words))
        self.register_buffer("guess_scale", torch.ones(()))
        self.register_buffer("guess_none", torch.zeros(()))

    def forward(self, ret: torch.Tensor, words: torch.Tensor | None = None) -> torch.Tensor:
        """[Ret] (n, d), any scale -> (n, w) float32 logits. words: (w,) int64, the words wanted; None for all."""
        chosen = slice(None) if words is None else words
        directions, biases = self.directions[chosen].float(), self.biases[chosen].float()
        return F.linear(F.normalize(ret.float(), dim=-1), directions, biases)

    def levels(self, ret: torch.Tensor) -> torch.Tensor:
        """[Ret] of photos (n, d) -> (n,) float32, what is subtracted from their logits for scores."""
        logits: torch.Tensor = self(ret)
        return SHARE * logits.logsumexp(dim=-1)

    def guess(self, ret: torch.Tensor) -> torch.Tensor:
        """[Ret] of sketches (n, d), any scale -> (n, w) float32 probabilities; the rest to 1 is that of no word."""
        logits: torch.Tensor = self(ret)
        return guess_log_probabilities(logits, self.guess_scale, self.guess_none)[:, :-1].exp()


def guess_log_probabilities(logits: torch.Tensor, scale: torch.Tensor, none: torch.Tensor) -> torch.Tensor:
    """Logits (n, w) -> (n, w + 1) log-probabilities of all words and, last, of none of them."""
    return torch.cat([scale * logits, none.expand(len(logits), 1)], dim=1).log_softmax(dim=1)
