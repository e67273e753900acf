"""Defines the parts of every network, which turns pictures into tokens, compares them by [Ret], and may know words."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from numpy.typing import NDArray
from torch import nn

from model import engine
from model.engine import UNCALIBRATED, Calibration, Modality, NetworkConfig
from model.network.encoder import EncoderTrace
from model.network.tokens import Tokens
from model.words import Names


class Prior(nn.Module):
    """The state of ``model.engine.Prior``."""

    def __init__(self, prototypes: int, width: int) -> None:
        super().__init__()
        self.prototypes = nn.Buffer(torch.zeros(prototypes, width))
        self.level, self.ret_weight, self.relation_weight = (nn.Buffer(torch.zeros(())) for _ in range(3))

    def known(self) -> engine.Prior:
        return engine.Prior.of(_arrays(self))


class Vocabulary(nn.Module):
    """The state of ``model.engine.Vocabulary``. drawn: empty without sketches."""

    def __init__(
        self, words: int, width: int, drawn: Sequence[int] = (), guess_width: int | None = None, placed: int = 0
    ) -> None:
        super().__init__()
        self.drawn, self.placed = tuple(drawn), placed
        self.directions, self.biases = nn.Buffer(torch.zeros(words, width)), nn.Buffer(torch.zeros(words))
        if self.drawn:
            self.sketch_directions = nn.Buffer(torch.zeros(len(self.drawn), guess_width or width))
            self.sketch_biases = nn.Buffer(torch.zeros(len(self.drawn)))
            self.places = nn.Buffer(torch.zeros(len(self.drawn), width))
            self.ret_gain, self.relation_gain = nn.Buffer(torch.zeros(())), nn.Buffer(torch.zeros(()))
        self.guess_scale, self.guess_none = nn.Buffer(torch.ones(())), nn.Buffer(torch.zeros(()))

    def known(self) -> engine.Vocabulary:
        return engine.Vocabulary.of(_arrays(self), self.drawn, self.placed)


def _arrays(part: nn.Module) -> dict[str, NDArray[Any]]:
    return {name: tensor.float().cpu().numpy() for name, tensor in part.state_dict().items()}


def guess_log_probabilities(logits: torch.Tensor, scale: torch.Tensor, none: torch.Tensor) -> torch.Tensor:
    """Computes log-probabilities (n, k + 1) of all things and, last, of none of them, from logits (n, k)."""
    return torch.cat([scale * logits, none.expand(len(logits), 1)], dim=1).log_softmax(dim=1)


class RetNetwork(nn.Module, ABC):
    """The base class of all networks, which searching and measuring use.

    A subclass gives tokens (``encode``), and calls ``_add_parts`` at the end of its constructor. kind: the name in the
    metadata of checkpoints, by which they are loaded. No computation here depends on the calibration.
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
        config = self.config
        self.prior = Prior(config.prototypes, config.width) if config.prototypes else None
        self.vocabulary = None
        if config.words:
            self.vocabulary = Vocabulary(
                len(config.words), config.width, config.drawn, config.guess_width, config.placed
            )

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
        """Returns a copy with the state of ``vocabulary``, whose words have these names; None for no vocabulary."""
        drawn, placed = ((), 0) if vocabulary is None else (vocabulary.drawn, vocabulary.placed)
        return self._part_replaced("vocabulary", vocabulary, words=words, drawn=drawn, placed=placed)

    def _part_replaced(self, name: str, part: nn.Module | None, **config: Any) -> Self:
        other = type(self)(dataclasses.replace(self.config, **config), self.calibration)
        state = {key: value for key, value in self.state_dict().items() if not key.startswith(f"{name}.")}
        if part is not None:
            state |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
        other.load_state_dict(state)
        return other.requires_grad_(False).eval()

    @property
    def precision(self) -> torch.dtype:
        """The precision of the computations for each pair."""
        return torch.float32

    def set_precision(self, dtype: torch.dtype) -> Self:
        """Sets the precision of the computations for each pair; returns the network. [Ret] stays in float32."""
        return self
