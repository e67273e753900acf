"""Defines the parts of every network, which turns pictures into tokens, compares them by [Ret], and may know words."""

import copy
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, Self

import torch
from numpy.typing import NDArray
from torch import nn

from sketch_search.model import engine
from sketch_search.model.errors import ModelError
from sketch_search.model.training.network.encoder import EncoderTrace
from sketch_search.model.training.network.relation import Tokens, as_tensor
from sketch_search.model.words import Names


class RetNetwork(nn.Module, ABC):
    """The base of all networks. kind: the name in checkpoints. Calibration, prior and words are an engine's part."""

    kind: ClassVar[str]
    config_kind: ClassVar[type[engine.NetworkConfig]]
    config: engine.NetworkConfig

    def __init__(self, config: engine.NetworkConfig, calibration: engine.Calibration = engine.UNCALIBRATED) -> None:
        super().__init__()
        self.config, self.calibration = config, calibration
        self.prior: engine.Prior | None = None
        self.vocabulary: engine.Vocabulary | None = None
        self.projection: engine.Projection | None = None
        self.parting: engine.Parting | None = None

    def encode(
        self, images: torch.Tensor | NDArray[Any], modality: engine.Modality, trace: EncoderTrace | None = None
    ) -> Tokens:
        """(b, 3, H, W) normalised pixels -> tokens, differentiable for tensors; ``trace`` records [Ret]'s attention."""
        return self._encode(as_tensor(images, next(self.parameters()).device).float(), modality, trace)

    @abstractmethod
    def _encode(self, images: torch.Tensor, modality: engine.Modality, trace: EncoderTrace | None) -> Tokens:
        """Encodes float32 images on this network's device."""

    def with_calibration(self, calibration: engine.Calibration) -> Self:
        """Returns a copy, in evaluation mode, with another calibration."""
        return self._replace(calibration=calibration)

    def with_config(self, **fields: Any) -> Self:
        """Returns a copy with other fields of its configuration that its tensors fit, such as keep rates."""
        changed = type(self)(replace(self.config, **fields), self.calibration)
        changed.load_state_dict(self.state_dict())
        known = {name: getattr(self, name) for name in ("prior", "vocabulary", "projection", "parting")}
        return changed._replace(**known)

    def prior_replaced(self, prior: engine.Prior | None) -> Self:
        """Returns a copy with another prior; None for no prior."""
        count = 0 if prior is None else len(prior.prototypes)
        return self._replace(prior=prior, config=replace(self.config, prototypes=count))

    def vocabulary_replaced(self, vocabulary: engine.Vocabulary | None, words: tuple[Names, ...] = ()) -> Self:
        """Returns a copy with another vocabulary, whose words have these names; None for no vocabulary."""
        drawn, placed = ((), 0) if vocabulary is None else (tuple(vocabulary.drawn.tolist()), vocabulary.placed)
        config = replace(self.config, words=words, drawn=drawn, placed=placed)
        return self._replace(vocabulary=vocabulary, config=config)

    def projection_replaced(self, projection: engine.Projection | None) -> Self:
        """Returns a copy with another projection of regions. Raises ModelError for a network without regions."""
        width = 0 if projection is None else len(projection.axes)
        if not isinstance(self.config, engine.TwoSidedConfig):
            raise ModelError(f"{self.config.name} has no regions; only two-sided networks have")
        return self._replace(projection=projection, config=replace(self.config, region_width=width))

    def parting_replaced(self, parting: engine.Parting | None) -> Self:
        """Returns a copy with another parting, which fits this sketch side alone."""
        return self._replace(parting=parting)

    def _replace(self, **attributes: Any) -> Self:
        other = copy.deepcopy(self)
        vars(other).update(attributes)
        return other.requires_grad_(False).eval()

    @property
    def precision(self) -> torch.dtype:
        """The precision of the computations for each pair."""
        return torch.float32

    def set_precision(self, dtype: torch.dtype) -> Self:
        """Sets the precision of the computations for each pair; returns the network. [Ret] stays in float32."""
        return self
