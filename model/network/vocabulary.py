"""The vocabulary of a network: words, each with a direction among the photos' [Ret]."""

from __future__ import annotations

from collections.abc import Sequence

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

    What a sketch shows is guessed from sketches, because [Ret] of sketches and of photos differ. With r the [Ret] of a
    sketch, y_k = e_k . r + c_k is the logit of the k-th thing of which there were sketches. No word may name it, and a
    sketch may show none of these things. So the guesses are a softmax over guess_scale y_k for all things and
    guess_none for none of them, and a word is as probable as the things that it names. Without such sketches the things
    are the words, and y is z.

    Attributes:
        directions: (w, d). biases: (w,).
        drawn: for each of k things, the number of its word; -1 where none names it. Empty without sketches.
        sketch_directions: (k, d), e. sketch_biases: (k,), c. Only with sketches.
        guess_scale, guess_none: chosen on sketches that were not trained on.
    """

    def __init__(self, words: int, width: int, drawn: Sequence[int] = ()) -> None:
        super().__init__()
        self.drawn = tuple(drawn)
        self.directions: torch.Tensor
        self.biases: torch.Tensor
        self.guess_scale: torch.Tensor
        self.guess_none: torch.Tensor
        self.register_buffer("directions", torch.zeros(words, width))
        self.register_buffer("biases", torch.zeros(words))
        if self.drawn:
            self.sketch_directions: torch.Tensor
            self.sketch_biases: torch.Tensor
            self.register_buffer("sketch_directions", torch.zeros(len(self.drawn), width))
            self.register_buffer("sketch_biases", torch.zeros(len(self.drawn)))
        self.register_buffer("guess_scale", torch.ones(()))
        self.register_buffer("guess_none", torch.zeros(()))

    def forward(self, ret: torch.Tensor, words: torch.Tensor | None = None) -> torch.Tensor:
        """[Ret] (n, d), any scale -> (n, w) float32 logits. words: (w,) int64, the words wanted; None for all."""
        chosen = slice(None) if words is None else words
        return _logits(ret, self.directions[chosen], self.biases[chosen])

    def things(self, ret: torch.Tensor) -> torch.Tensor:
        """[Ret] of sketches (n, d), any scale -> (n, k) float32 logits of the things, y."""
        return _logits(ret, self.sketch_directions, self.sketch_biases) if self.drawn else self(ret)

    def levels(self, ret: torch.Tensor) -> torch.Tensor:
        """[Ret] of photos (n, d) -> (n,) float32, what is subtracted from their logits for scores."""
        logits: torch.Tensor = self(ret)
        return SHARE * logits.logsumexp(dim=-1)

    def guess(self, ret: torch.Tensor) -> torch.Tensor:
        """[Ret] of sketches (n, d), any scale -> (n, w) float32 probabilities; the rest to 1 is that of no word."""
        found = guess_log_probabilities(self.things(ret), self.guess_scale, self.guess_none)[:, :-1].exp()
        if not self.drawn:
            return found
        numbers = torch.tensor(self.drawn, device=found.device)
        words = torch.zeros(len(found), len(self.biases), device=found.device)
        return words.index_add_(1, numbers[numbers >= 0], found[:, numbers >= 0])


def _logits(ret: torch.Tensor, directions: torch.Tensor, biases: torch.Tensor) -> torch.Tensor:
    return F.linear(F.normalize(ret.float(), dim=-1), directions.float(), biases.float())


def guess_log_probabilities(logits: torch.Tensor, scale: torch.Tensor, none: torch.Tensor) -> torch.Tensor:
    """Logits (n, k) -> (n, k + 1) log-probabilities of all things and, last, of none of them."""
    return torch.cat([scale * logits, none.expand(len(logits), 1)], dim=1).log_softmax(dim=1)
