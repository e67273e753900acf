"""The whole network: encoder, cross-attention and relation network, composed as in Figure 2 of the paper."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from model.network.calibration import UNCALIBRATED, Calibration
from model.network.config import Modality, ModelConfig
from model.network.convolutional import ConvolutionalEncoder
from model.network.cross import CrossAttention, Side
from model.network.encoder import Encoder, EncoderTrace
from model.network.prior import Prior
from model.network.relation import RELATIONS, BestMatchRelation, KernelRelation, RetTerm
from model.network.tokens import Tokens
from model.network.vocabulary import Vocabulary
from model.words import Names


class Network(nn.Module):
    """Images to tokens (``encode``), tokens to half a cross-attention (``project``), pairs to logits (``relate``).

    The encoder works in float32; cross-attention and kernel matrix may work in less (``set_precision``).

    Attributes:
        config: architecture and preprocessing.
        calibration: what was chosen for the weights; no computation here depends on it.
    """

    def __init__(self, config: ModelConfig, calibration: Calibration = UNCALIBRATED) -> None:
        super().__init__()
        self.config = config
        self.calibration = calibration
        self.encoder: Encoder | ConvolutionalEncoder = (
            Encoder(config) if config.encoder == "vit" else ConvolutionalEncoder(config)
        )
        self.cross = CrossAttention(config) if config.cross_attention else None
        self.relation: KernelRelation | BestMatchRelation = RELATIONS[config.relation](config)
        self.ret_term = RetTerm() if config.relation_ret else None
        self.prior = Prior(config.prototypes, config.width) if config.prototypes else None
        self.vocabulary = Vocabulary(len(config.words), config.width) if config.words else None

    def encode(self, images: torch.Tensor, modality: Modality, trace: EncoderTrace | None = None) -> Tokens:
        """(b, 3, H, W) normalised pixels -> tokens."""
        tokens: Tokens = self.encoder(images, modality, trace)
        return tokens

    def project(self, tokens: Tokens, modality: Modality) -> Side:
        """What the score of a pair needs of one image alone; once for each image."""
        if self.cross is None:
            return Side(tokens.features, tokens.positions, tokens.ret)
        return self.cross.project(tokens, modality)

    def align(self, sketch: Side, photo: Side) -> tuple[Tokens, Tokens]:
        """b sketches, or one for all of them, with b photos -> their tokens after cross-attention."""
        if self.cross is None:
            return Tokens(sketch.features, sketch.positions), Tokens(photo.features, photo.positions)
        pair: tuple[Tokens, Tokens] = self.cross(sketch, photo)
        return pair

    def relate(self, sketch: Side, photo: Side) -> torch.Tensor:
        """b sketches, or one for all of them, with b photos -> (b,) float32 logits of the relation scores (eq. 9)."""
        return self.relation_logits(*self.align(sketch, photo), sketch, photo)

    def relation_logits(self, aligned_sketch: Tokens, aligned_photo: Tokens, sketch: Side, photo: Side) -> torch.Tensor:
        """The second half of ``relate``: (b,) float32 logits of pairs that ``align`` has aligned."""
        with torch.autocast(sketch.features.device.type, enabled=False):
            logits: torch.Tensor = self.relation(aligned_sketch, aligned_photo)
            if self.ret_term is not None:
                logits = logits + self.ret_term(sketch.ret, photo.ret)
            if self.prior is not None:
                logits = logits - self.prior.relation_weight * self.prior(photo.ret)
        return logits

    def without_prior(self) -> Network:
        """The same network, or a copy of it that has no prior."""
        return self if self.prior is None else self.prior_replaced(None)

    def prior_replaced(self, prior: Prior | None) -> Network:
        """A copy with the state of this prior in the place of its own, if it has one; None for no prior."""
        return self._part_replaced("prior", prior, prototypes=0 if prior is None else len(prior.prototypes))

    def without_vocabulary(self) -> Network:
        """The same network, or a copy of it that has no vocabulary."""
        return self if self.vocabulary is None else self.vocabulary_replaced(None, ())

    def vocabulary_replaced(self, vocabulary: Vocabulary | None, words: tuple[Names, ...]) -> Network:
        """A copy with the state of this vocabulary in the place of its own, if it has one; None for no vocabulary.

        words: the names of each of its words, as in ``ModelConfig.words``.
        """
        return self._part_replaced("vocabulary", vocabulary, words=words)

    def _part_replaced(self, name: str, part: nn.Module | None, **config: Any) -> Network:
        """A copy, in evaluation mode, that has the state of ``part`` and a configuration that says so."""
        other = Network(dataclasses.replace(self.config, **config), self.calibration)
        state = {key: value for key, value in self.state_dict().items() if not key.startswith(f"{name}.")}
        if part is not None:
            state |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
        other.load_state_dict(state)
        return other.requires_grad_(False).eval()

    def ret_distances(
        self, sketch_ret: torch.Tensor, photo_ret: torch.Tensor, priors: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Distances of [Ret]: (s, d), (p, d) -> (s, p) float32 in [0, 2].

        They are Euclidean distances of the L2-normalised tokens. With a prior they are those of tokens whose cosine is
        lower by the prior times its weight: sqrt(2 - 2 (cosine - ret_weight * prior)).

        priors: (p,) the photos' priors, where they are known already.
        """
        s, p = F.normalize(sketch_ret.float(), dim=-1), F.normalize(photo_ret.float(), dim=-1)
        distances = torch.cdist(s, p, compute_mode="donot_use_mm_for_euclid_dist")
        if self.prior is None:
            return distances
        known = self.prior(photo_ret) if priors is None else priors
        return (distances.square() + 2 * self.prior.ret_weight * known).clamp(0, 4).sqrt()

    @property
    def precision(self) -> torch.dtype:
        """The precision of cross-attention and kernel."""
        return torch.float32 if self.cross is None else self.cross.sketch.query.weight.dtype

    def set_precision(self, dtype: torch.dtype) -> Network:
        """Lets cross-attention and kernel, where searches spend their time, compute in ``dtype``; returns the network.

        The encoder stays in float32, because a small rounding error there can make token selection keep other tokens:
        in bfloat16 relation scores moved by up to 0.07, against 0.002 with the cross-attention alone in bfloat16.
        """
        if self.cross is not None:
            self.cross.to(dtype)
            if isinstance(self.relation, KernelRelation):
                self.relation.downsample.to(dtype)
        return self
