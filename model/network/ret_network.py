"""What every network has: it turns pictures into tokens, whose first is [Ret], and compares pictures by [Ret]."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol, Self

import torch
import torch.nn.functional as F
from torch import nn

from model.errors import ModelError
from model.network.calibration import UNCALIBRATED, Calibration
from model.network.config import Modality
from model.network.layers import EncoderTrace, Side
from model.network.prior import Prior
from model.network.tokens import Tokens
from model.network.vocabulary import Vocabulary
from model.words import Names


class NetworkConfig(Protocol):
    """What is read of the configuration of any network; ``ModelConfig`` explains each."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def name(self) -> str: ...
    @property
    def image_size(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def grid(self) -> int: ...
    @property
    def mean(self) -> tuple[float, float, float]: ...
    @property
    def std(self) -> tuple[float, float, float]: ...
    @property
    def released_preprocessing(self) -> bool: ...
    @property
    def released_padding(self) -> bool: ...
    @property
    def prototypes(self) -> int: ...
    @property
    def words(self) -> tuple[Names, ...]: ...
    @property
    def drawn(self) -> tuple[int, ...]: ...
    def token_count(self, modality: Modality) -> int: ...
    def to_json(self) -> str: ...


class RetNetwork(nn.Module, ABC):
    """A network as searching and measuring know it.

    A subclass gives tokens (``encode``). If it can compare two pictures by more than [Ret], it also gives logits of
    pairs (``relate``). A subclass calls ``_add_parts`` at the end of its constructor.

    Attributes:
        kind: the name in the metadata of checkpoints, by which they are loaded.
        config: architecture and preprocessing.
        calibration: what was chosen for the weights; no computation here depends on it.
        prior, vocabulary: None for a network without one.
    """

    kind: ClassVar[str]
    config: NetworkConfig
    prior: Prior | None
    vocabulary: Vocabulary | None

    def __init__(self, config: NetworkConfig, calibration: Calibration = UNCALIBRATED) -> None:
        super().__init__()
        self.config = config
        self.calibration = calibration

    @staticmethod
    @abstractmethod
    def read_config(text: str) -> NetworkConfig:
        """The configuration in a checkpoint's metadata. Raises ModelError for one that cannot be used."""

    def _add_parts(self) -> None:
        """Adds the prior and the vocabulary that the configuration asks for."""
        config = self.config
        self.prior = Prior(config.prototypes, config.width) if config.prototypes else None
        self.vocabulary = Vocabulary(len(config.words), config.width, config.drawn) if config.words else None

    @abstractmethod
    def encode(self, images: torch.Tensor, modality: Modality, trace: EncoderTrace | None = None) -> Tokens:
        """(b, 3, H, W) normalised pixels -> tokens; ``trace`` records the attention of [Ret]."""

    def project(self, tokens: Tokens, modality: Modality) -> Side:
        """What the score of a pair needs of one image alone; once for each image."""
        return Side(tokens.features, tokens.positions, tokens.ret)

    def relate(self, sketch: Side, photo: Side) -> torch.Tensor:
        """b sketches, or one for all of them, with b photos -> (b,) float32 logits of the relation scores."""
        raise ModelError(f"{self.config.name} has no relation network; it compares pictures by [Ret] alone")

    def with_calibration(self, calibration: Calibration) -> Self:
        """A copy, in evaluation mode, with another calibration."""
        other = type(self)(self.config, calibration)
        other.load_state_dict(self.state_dict())
        return other.requires_grad_(False).eval()

    def without_prior(self) -> Self:
        """The same network, or a copy of it that has no prior."""
        return self if self.prior is None else self.prior_replaced(None)

    def prior_replaced(self, prior: Prior | None) -> Self:
        """A copy with the state of this prior in the place of its own, if it has one; None for no prior."""
        return self._part_replaced("prior", prior, prototypes=0 if prior is None else len(prior.prototypes))

    def without_vocabulary(self) -> Self:
        """The same network, or a copy of it that has no vocabulary."""
        return self if self.vocabulary is None else self.vocabulary_replaced(None, ())

    def vocabulary_replaced(self, vocabulary: Vocabulary | None, words: tuple[Names, ...]) -> Self:
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
        """The precision of what is computed for each pair."""
        return torch.float32

    def set_precision(self, dtype: torch.dtype) -> Self:
        """Lets what is computed for each pair compute in ``dtype``; returns the network. [Ret] stays in float32."""
        return self
