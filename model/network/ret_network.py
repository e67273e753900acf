"""The parts that every network has: it turns pictures into tokens, compares them by [Ret], and may know words."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import nn

from model.network.config import UNCALIBRATED, Calibration, Modality, NetworkConfig
from model.network.encoder import EncoderTrace
from model.network.tokens import Tokens
from model.words import Names

# Of a log-mean-exp: higher values are nearer to the maximum over the prototypes, lower ones to the mean.
SHARPNESS = 7.0


class Prior(nn.Module):
    """Lowers a photo's scores because sketches of trained things lie near it in any case.

    Training pulls sketches towards the photos of trained things, so sketches of new things fall near those photos, too,
    and photos of new things drown in a large gallery. With c_k the cosine of the photo's [Ret] and prototype k of the
    training sketches,

        prior = log(mean_k exp(SHARPNESS c_k)) / SHARPNESS - level.

    The idea is that of calibrated stacking (Chao et al., ECCV 2016), for photos in the place of classes.

    Attributes:
        prototypes: (k, d) L2-normalised [Ret] of training sketches, or means of some that lie together.
        level: the mean over training and other photos, so that scores keep their range.
        ret_weight: by how much cosines of [Ret] are lowered for a prior of 1.
        relation_weight: by how much relation logits are lowered for a prior of 1.
    """

    def __init__(self, prototypes: int, width: int) -> None:
        super().__init__()
        self.prototypes: torch.Tensor
        self.level: torch.Tensor
        self.ret_weight: torch.Tensor
        self.relation_weight: torch.Tensor
        self.register_buffer("prototypes", torch.zeros(prototypes, width))
        for name in ("level", "ret_weight", "relation_weight"):
            self.register_buffer(name, torch.zeros(()))

    def forward(self, ret: torch.Tensor) -> torch.Tensor:
        """[Ret] of photos (n, d), any scale -> (n,) float32 priors."""
        cosines = F.normalize(ret.float(), dim=-1) @ self.prototypes.float().T
        mean = torch.logsumexp(SHARPNESS * cosines, dim=-1) - math.log(len(self.prototypes))
        return mean / SHARPNESS - self.level


# A photo's other words count so far against a word: 0 ranks photos by the word's logit, 1 by its probability among
# all words. Between them is best where photos show one thing, and where they show two or three: on training photos that
# the fit did not see, alone and mixed, mean average precision was 0.932, 0.818 and 0.727 with it, 0.927, 0.807 and
# 0.713 with 0, and 0.933, 0.809 and 0.724 with 1.
SHARE = 0.5
# How sharply the places of things decide which thing a photo shows. From 20 to 45 it makes hardly any difference.
NEARNESS = 30.0


class Vocabulary(nn.Module):
    """Says in words what a picture shows.

    With r the [Ret] of a photo, normalised, z_w = d_w . r + b_w is the logit of word w, and the softmax over all words
    is how probable each is. A photo's score for a word, by which photos are compared, is

        score_w = z_w - SHARE log(sum_v exp(z_v)).

    What a sketch shows is guessed from sketches, because sketches and photos differ. With s the summary of a sketch, or
    its [Ret] where the encoder gives no summary, normalised, y_k = e_k . s + c_k is the logit of the k-th thing of
    which there were sketches. No word may name it, and a sketch may show none of these things. So the guesses are a
    softmax over guess_scale y_k for all things and guess_none for none of them, and a word is as probable as the things
    that it names. Without such sketches the things are the words, and y is z.

    Attributes:
        directions: (w, d). biases: (w,).
        drawn: for each of k things, the number of its word; -1 where none names it. Empty without sketches.
        sketch_directions: (k, e), e. sketch_biases: (k,), c. Only with sketches.
        places: (k, d) of length 1, or zeros where nobody knows where photos of a thing lie. Only with sketches.
        guess_scale, guess_none: chosen on sketches that were not trained on.
        ret_gain, relation_gain: chosen on validation classes; 0 where guesses do not lead. Only with sketches.
    """

    def __init__(self, words: int, width: int, drawn: Sequence[int] = (), guess_width: int | None = None) -> None:
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
            self.places: torch.Tensor
            self.ret_gain: torch.Tensor
            self.relation_gain: torch.Tensor
            self.register_buffer("sketch_directions", torch.zeros(len(self.drawn), guess_width or width))
            self.register_buffer("sketch_biases", torch.zeros(len(self.drawn)))
            self.register_buffer("places", torch.zeros(len(self.drawn), width))
            self.register_buffer("ret_gain", torch.zeros(()))
            self.register_buffer("relation_gain", torch.zeros(()))
        self.register_buffer("guess_scale", torch.ones(()))
        self.register_buffer("guess_none", torch.zeros(()))

    def forward(self, ret: torch.Tensor, words: torch.Tensor | None = None) -> torch.Tensor:
        """[Ret] (n, d), any scale -> (n, w) float32 logits. words: (w,) int64, the words wanted; None for all."""
        chosen = slice(None) if words is None else words
        return _logits(ret, self.directions[chosen], self.biases[chosen])

    def things(self, sketches: Tokens) -> torch.Tensor:
        """(n, k) float32: the logits of the things that n sketches may show, y."""
        if not self.drawn:
            logits: torch.Tensor = self(sketches.ret)
            return logits
        return _logits(sketches.guessed_from, self.sketch_directions, self.sketch_biases)

    def levels(self, ret: torch.Tensor) -> torch.Tensor:
        """[Ret] of photos (n, d) -> (n,) float32, what is subtracted from their logits for scores."""
        logits: torch.Tensor = self(ret)
        return SHARE * logits.logsumexp(dim=-1)

    def guess(self, sketches: Tokens) -> torch.Tensor:
        """(n, w) float32: how probably n sketches show what each word names; the rest to 1 is that of no word."""
        found = self.guessed(sketches)
        if not self.drawn:
            return found
        numbers = torch.tensor(self.drawn, device=found.device)
        words = torch.zeros(len(found), len(self.biases), device=found.device)
        return words.index_add_(1, numbers[numbers >= 0], found[:, numbers >= 0])

    def agreement(self, guessed: torch.Tensor, photo: torch.Tensor) -> torch.Tensor:
        """Guesses for n sketches (n, k), or for one, and [Ret] of n photos (n, d) -> (n,) float32 in [0, 1]."""
        return (guessed * self.shown(photo)).sum(dim=-1)

    def shown(self, ret: torch.Tensor) -> torch.Tensor:
        """[Ret] of photos (n, d), any scale -> (n, k) float32, how probably each shows each thing, Q."""
        logits = NEARNESS * (F.normalize(ret.float(), dim=-1) @ self.places.float().T)
        return logits.masked_fill(~self.places.any(dim=1), torch.finfo(torch.float32).min).softmax(dim=-1)

    def guessed(self, sketches: Tokens) -> torch.Tensor:
        """(n, k) float32: how probably n sketches show each thing, P.

        Where summaries are read, a photo in a sketch's place, which has none, is guessed to show nothing.
        """
        if self.drawn and sketches.guessed_from.shape[1] != self.sketch_directions.shape[1]:
            return torch.zeros(len(sketches), len(self.drawn), device=sketches.ret.device)
        return guess_log_probabilities(self.things(sketches), self.guess_scale, self.guess_none)[:, :-1].exp()


def _logits(ret: torch.Tensor, directions: torch.Tensor, biases: torch.Tensor) -> torch.Tensor:
    return F.linear(F.normalize(ret.float(), dim=-1), directions.float(), biases.float())


def guess_log_probabilities(logits: torch.Tensor, scale: torch.Tensor, none: torch.Tensor) -> torch.Tensor:
    """Logits (n, k) -> (n, k + 1) log-probabilities of all things and, last, of none of them."""
    return torch.cat([scale * logits, none.expand(len(logits), 1)], dim=1).log_softmax(dim=1)


class RetNetwork(nn.Module, ABC):
    """A network as searching and measuring know it.

    A subclass gives tokens (``encode``), and calls ``_add_parts`` at the end of its constructor.

    Attributes:
        kind: the name in the metadata of checkpoints, by which they are loaded. config_kind: the class of ``config``.
        config: architecture and preprocessing.
        calibration: what was chosen for the weights; no computation here depends on it.
        prior, vocabulary: None for a network without one.
    """

    kind: ClassVar[str]
    config_kind: ClassVar[type[NetworkConfig]]
    config: NetworkConfig
    prior: Prior | None
    vocabulary: Vocabulary | None

    def __init__(self, config: NetworkConfig, calibration: Calibration = UNCALIBRATED) -> None:
        super().__init__()
        self.config = config
        self.calibration = calibration

    def _add_parts(self) -> None:
        """Adds the prior and the vocabulary that the configuration asks for."""
        config = self.config
        self.prior = Prior(config.prototypes, config.width) if config.prototypes else None
        self.vocabulary = None
        if config.words:
            self.vocabulary = Vocabulary(len(config.words), config.width, config.drawn, config.guess_width)

    @abstractmethod
    def encode(self, images: torch.Tensor, modality: Modality, trace: EncoderTrace | None = None) -> Tokens:
        """(b, 3, H, W) normalised pixels -> tokens; ``trace`` records the attention of [Ret]."""

    def with_calibration(self, calibration: Calibration) -> Self:
        """A copy, in evaluation mode, with another calibration."""
        other = type(self)(self.config, calibration)
        other.load_state_dict(self.state_dict())
        return other.requires_grad_(False).eval()

    def prior_replaced(self, prior: Prior | None) -> Self:
        """A copy with the state of this prior in the place of its own, if it has one; None for no prior."""
        return self._part_replaced("prior", prior, prototypes=0 if prior is None else len(prior.prototypes))

    def vocabulary_replaced(self, vocabulary: Vocabulary | None, words: tuple[Names, ...] = ()) -> Self:
        """A copy with the state of this vocabulary in the place of its own, if it has one; None for no vocabulary.

        words: the names of each of its words, as in ``ModelConfig.words``.
        """
        drawn = () if vocabulary is None else vocabulary.drawn
        return self._part_replaced("vocabulary", vocabulary, words=words, drawn=drawn)

    def _part_replaced(self, name: str, part: nn.Module | None, **config: Any) -> Self:
        """A copy, in evaluation mode, that has the state of ``part`` and a configuration that says so."""
        other = type(self)(dataclasses.replace(self.config, **config), self.calibration)
        state = {key: value for key, value in self.state_dict().items() if not key.startswith(f"{name}.")}
        if part is not None:
            state |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
        other.load_state_dict(state)
        return other.requires_grad_(False).eval()

    def ret_distances(
        self, sketch: Tokens, photo: Tokens, priors: torch.Tensor | None = None, agreements: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Computes distances of [Ret]: s sketches, p photos -> (s, p) float32 in [0, sqrt(4 + 2 ret_gain)].

        They are Euclidean distances of the L2-normalised tokens. With a prior they are those of tokens whose cosine is
        lower by the prior times its weight: sqrt(2 - 2 (cosine - ret_weight * prior)). Where guesses lead, it is lower
        by ret_gain * (1 - agreement), too. Without guesses ret_gain is 0.

        priors: (p,) the photos' priors, where they are known already. agreements: (s, p), likewise.
        """
        s, p = F.normalize(sketch.ret.float(), dim=-1), F.normalize(photo.ret.float(), dim=-1)
        distances = torch.cdist(s, p, compute_mode="donot_use_mm_for_euclid_dist")
        gain = self.ret_gain
        if self.prior is None and not gain:
            return distances
        squares = distances.square()
        if self.prior is not None:
            squares += 2 * self.prior.ret_weight * (self.prior(photo.ret) if priors is None else priors)
        if gain:
            if agreements is None:
                agreements = self.agreements(self.guessed(sketch), photo.ret)
            squares += 2 * gain * (1 - agreements)
        return squares.clamp(0, 4 + 2 * gain).sqrt()

    def guessed(self, sketch: Tokens) -> torch.Tensor:
        """s sketches -> (s, k) float32: how probably each shows each thing; k is 0 where guesses do not lead."""
        if not self.ret_gain or self.vocabulary is None:
            return torch.zeros(len(sketch), 0, device=sketch.ret.device)
        # One by one, so that no sketch depends on the others.
        return torch.cat([self.vocabulary.guessed(sketch[row : row + 1]) for row in range(len(sketch))])

    def agreements(self, guessed: torch.Tensor, photo_ret: torch.Tensor) -> torch.Tensor:
        """What s sketches show, as ``guessed`` says, and [Ret] of p photos (p, d) -> (s, p) float32: how far it agrees.

        It is 0 where guesses do not lead.
        """
        if not guessed.shape[1] or self.vocabulary is None:
            return torch.zeros(len(guessed), len(photo_ret), device=photo_ret.device)
        shown = self.vocabulary.shown(photo_ret)
        return torch.stack([(one * shown).sum(dim=-1) for one in guessed])

    @property
    def ret_gain(self) -> float:
        """By how much cosines of [Ret] are raised where the guesses and a photo agree; 0 where guesses do not lead."""
        return 0.0 if self.vocabulary is None or not self.vocabulary.drawn else float(self.vocabulary.ret_gain)

    @property
    def precision(self) -> torch.dtype:
        """The precision of what is computed for each pair."""
        return torch.float32

    def set_precision(self, dtype: torch.dtype) -> Self:
        """Lets what is computed for each pair compute in ``dtype``; returns the network. [Ret] stays in float32."""
        return self
