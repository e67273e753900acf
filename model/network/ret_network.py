"""Defines the parts of every network, which turns pictures into tokens, compares them by [Ret], and may know words."""

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

# The sharpness of a log-mean-exp. Higher values bring it nearer to the maximum over the prototypes, lower ones to the
# mean. It was chosen on validation classes, among values from 7 to 45.
SHARPNESS = 12.0


class Prior(nn.Module):
    """Lowers a photo's scores because sketches of trained things lie near it in any case.

    Training pulls sketches towards the photos of trained things, so sketches of new things fall near those photos, too,
    and photos of new things drown in a large gallery. With c_k the cosine of the photo's [Ret] and prototype k of the
    training sketches,

        prior = log(mean_k exp(SHARPNESS c_k)) / SHARPNESS - level.

    The idea is that of calibrated stacking (Chao et al., ECCV 2016), for photos in the place of classes.

    Attributes:
        prototypes: (k, d) L2-normalised [Ret] of training sketches, or means of sketches that lie together.
        level: the mean over training and other photos, so that scores keep their range.
        ret_weight: how much cosines of [Ret] are lowered for a prior of 1.
        relation_weight: how much relation logits are lowered for a prior of 1.
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


# The degree to which a photo's other words count against a word: 0 ranks photos by the word's logit, 1 by its
# probability among all words. A value between them is best for photos of one thing, of two, and of three: on training
# photos that the fit did not see, alone and mixed, mean average precision was 0.932, 0.818 and 0.727 with this value,
# 0.927, 0.807 and 0.713 with 0, and 0.933, 0.809 and 0.724 with 1.
SHARE = 0.5
# The sharpness with which the places of things decide which thing a photo shows. Values from 20 to 45 hardly differ.
NEARNESS = 30.0


class Vocabulary(nn.Module):
    """Says in words what a picture shows.

    With r the [Ret] of a photo, normalised, z_w = d_w . r + b_w is the logit of word w, and the softmax over all words
    is how probable each is. A photo's score for a word, by which photos are compared, is

        score_w = z_w - SHARE log(sum_v exp(z_v)).

    Guesses for sketches are learned from sketches, because sketches and photos differ. With s the summary of a sketch,
    or its [Ret] if the encoder gives no summary, normalised, y_k = e_k . s + c_k is the logit of the k-th thing of
    which there were sketches. There may be no word for a thing, and a sketch may show none of these things. So the
    guesses are a softmax over guess_scale y_k for all things and guess_none for none of them, and a word is as probable
    as the things that it names. Without sketches the things are the words, and y is z.

    Attributes:
        directions: (w, d). biases: (w,).
        drawn: for each of k things, the number of its word; -1 if no word names it. Empty without sketches.
        sketch_directions: (k, e), e. sketch_biases: (k,), c. Only with sketches.
        places: (k, d), where photos of each thing lie, of length 1; zeros if this is not known. Only with sketches.
        guess_scale, guess_none: chosen on sketches that were not trained on.
        ret_gain, relation_gain: chosen on validation classes; 0 if guesses do not lead. Only with sketches.
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
        """[Ret] (n, d), any scale -> (n, w) float32 logits. words: (w,) int64, the wanted words; None for all."""
        chosen = slice(None) if words is None else words
        return _logits(ret, self.directions[chosen], self.biases[chosen])

    def things(self, sketches: Tokens) -> torch.Tensor:
        """Computes the logits y of the things that n sketches may show, (n, k) float32."""
        if not self.drawn:
            logits: torch.Tensor = self(sketches.ret)
            return logits
        return _logits(sketches.guessed_from, self.sketch_directions, self.sketch_biases)

    def levels(self, ret: torch.Tensor) -> torch.Tensor:
        """[Ret] of photos (n, d) -> (n,) float32, the level that is subtracted from their logits to get scores."""
        logits: torch.Tensor = self(ret)
        return SHARE * logits.logsumexp(dim=-1)

    def guess(self, sketches: Tokens) -> torch.Tensor:
        """Computes how probably n sketches show what each word names, (n, w) float32; the rest to 1 is for no word."""
        found = self.guessed(sketches)
        if not self.drawn:
            return found
        numbers = torch.tensor(self.drawn, device=found.device)
        words = torch.zeros(len(found), len(self.biases), device=found.device)
        return words.index_add_(1, numbers[numbers >= 0], found[:, numbers >= 0])

    def agreement(self, guessed: torch.Tensor, photo: torch.Tensor) -> torch.Tensor:
        """Compares guesses for n sketches (n, k), or for one, with photos' [Ret] (n, d) -> (n,) float32 in [0, 1]."""
        return (guessed * self.shown(photo)).sum(dim=-1)

    def shown(self, ret: torch.Tensor) -> torch.Tensor:
        """Computes how probably each photo shows each thing, Q: [Ret] of photos (n, d), any scale -> (n, k) float32."""
        logits = NEARNESS * (F.normalize(ret.float(), dim=-1) @ self.places.float().T)
        return logits.masked_fill(~self.places.any(dim=1), torch.finfo(torch.float32).min).softmax(dim=-1)

    def guessed(self, sketches: Tokens) -> torch.Tensor:
        """Computes how probably n sketches show each thing, P: (n, k) float32.

        If summaries are read, a photo in a sketch's place, which has no summary, is guessed to show nothing.
        """
        if self.drawn and sketches.guessed_from.shape[1] != self.sketch_directions.shape[1]:
            return torch.zeros(len(sketches), len(self.drawn), device=sketches.ret.device)
        return guess_log_probabilities(self.things(sketches), self.guess_scale, self.guess_none)[:, :-1].exp()


def _logits(ret: torch.Tensor, directions: torch.Tensor, biases: torch.Tensor) -> torch.Tensor:
    return F.linear(F.normalize(ret.float(), dim=-1), directions.float(), biases.float())


def guess_log_probabilities(logits: torch.Tensor, scale: torch.Tensor, none: torch.Tensor) -> torch.Tensor:
    """Computes log-probabilities (n, k + 1) of all things and, last, of none of them, from logits (n, k)."""
    return torch.cat([scale * logits, none.expand(len(logits), 1)], dim=1).log_softmax(dim=1)


class RetNetwork(nn.Module, ABC):
    """The base class of all networks, which searching and measuring use.

    A subclass gives tokens (``encode``), and calls ``_add_parts`` at the end of its constructor.

    Attributes:
        kind: the name in the metadata of checkpoints, by which they are loaded. config_kind: the class of ``config``.
        config: architecture and preprocessing.
        calibration: the choices for the weights; no computation here depends on it.
        prior, vocabulary: None for a network without them.
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
        """Returns a copy, in evaluation mode, with another calibration."""
        other = type(self)(self.config, calibration)
        other.load_state_dict(self.state_dict())
        return other.requires_grad_(False).eval()

    def prior_replaced(self, prior: Prior | None) -> Self:
        """Returns a copy whose prior is replaced by the state of ``prior``; None for no prior."""
        return self._part_replaced("prior", prior, prototypes=0 if prior is None else len(prior.prototypes))

    def vocabulary_replaced(self, vocabulary: Vocabulary | None, words: tuple[Names, ...] = ()) -> Self:
        """Returns a copy whose vocabulary is replaced by the state of ``vocabulary``; None for no vocabulary.

        words: the names of each of its words, as in ``ModelConfig.words``.
        """
        drawn = () if vocabulary is None else vocabulary.drawn
        return self._part_replaced("vocabulary", vocabulary, words=words, drawn=drawn)

    def _part_replaced(self, name: str, part: nn.Module | None, **config: Any) -> Self:
        """Returns a copy, in evaluation mode, with the state of ``part`` and the matching configuration."""
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

        They are Euclidean distances of the L2-normalised tokens. With a prior the cosine is lowered by the prior times
        its weight: sqrt(2 - 2 (cosine - ret_weight * prior)). If guesses lead, it is lowered by
        ret_gain * (1 - agreement), too. Without guesses ret_gain is 0.

        priors: (p,) the photos' priors, if they are known already. agreements: (s, p), if they are known already.
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
        """Computes how probably each of s sketches shows each thing: (s, k) float32; k is 0 if guesses do not lead."""
        if not self.ret_gain or self.vocabulary is None:
            return torch.zeros(len(sketch), 0, device=sketch.ret.device)
        # The sketches are computed one by one, so that none depends on the others.
        return torch.cat([self.vocabulary.guessed(sketch[row : row + 1]) for row in range(len(sketch))])

    def agreements(self, guessed: torch.Tensor, photo_ret: torch.Tensor) -> torch.Tensor:
        """Computes how far the things ``guessed`` for s sketches agree with [Ret] of p photos (p, d): (s, p) float32.

        The agreement is 0 if guesses do not lead.
        """
        if not guessed.shape[1] or self.vocabulary is None:
            return torch.zeros(len(guessed), len(photo_ret), device=photo_ret.device)
        shown = self.vocabulary.shown(photo_ret)
        return torch.stack([(one * shown).sum(dim=-1) for one in guessed])

    @property
    def ret_gain(self) -> float:
        """The amount by which cosines of [Ret] are raised if guesses and photo agree; 0 if guesses do not lead."""
        return 0.0 if self.vocabulary is None or not self.vocabulary.drawn else float(self.vocabulary.ret_gain)

    @property
    def precision(self) -> torch.dtype:
        """The precision of the computations for each pair."""
        return torch.float32

    def set_precision(self, dtype: torch.dtype) -> Self:
        """Sets the precision of the computations for each pair; returns the network. [Ret] stays in float32."""
        return self
