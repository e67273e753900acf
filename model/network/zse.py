"""The whole network: encoder, cross-attention and relation network, composed as in Figure 2 of the paper."""

from __future__ import annotations

from typing import ClassVar, Self

import torch

from model.errors import ModelError
from model.network.calibration import UNCALIBRATED, Calibration
from model.network.config import Modality, ModelConfig
from model.network.encoder import Encoder, EncoderTrace
from model.network.relation import RELATIONS, BestMatchRelation, CrossAttention, KernelRelation, RetTerm, Side
from model.network.ret_network import RetNetwork
from model.network.tokens import Tokens
from model.network.two_sided import TwoSidedEncoder

_ENCODERS: dict[str, type[Encoder | TwoSidedEncoder]] = {
    "vit": Encoder,
    "two-sided": TwoSidedEncoder,
}


class Network(RetNetwork):
    """Images to tokens (``encode``), tokens to half a cross-attention (``project``), pairs to logits (``relate``).

    The encoder works in float32; cross-attention and kernel matrix may work in less (``set_precision``).
    """

    kind: ClassVar[str] = "zse"
    config: ModelConfig

    def __init__(self, config: ModelConfig, calibration: Calibration = UNCALIBRATED) -> None:
        super().__init__(config, calibration)
        self.encoder: Encoder | TwoSidedEncoder = _ENCODERS[config.encoder](config)
        self.cross = CrossAttention(config) if config.cross_attention else None
        self.relation: KernelRelation | BestMatchRelation = RELATIONS[config.relation](config)
        self.ret_term = RetTerm() if config.relation_ret else None
        self._add_parts()

    @staticmethod
    def read_config(text: str) -> ModelConfig:
        """The configuration in a checkpoint's metadata. Raises ModelError for one that cannot be used."""
        return ModelConfig.from_json(text)

    def encode(self, images: torch.Tensor, modality: Modality, trace: EncoderTrace | None = None) -> Tokens:
        """(b, 3, H, W) normalised pixels -> tokens."""
        tokens: Tokens = self.encoder(images, modality, trace)
        return tokens

    def project(self, tokens: Tokens, modality: Modality) -> Side:
        """Computes the part of a pair's score that depends on one image alone; once for each image."""
        return super().project(tokens, modality) if self.cross is None else self.cross.project(tokens, modality)

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

    @property
    def precision(self) -> torch.dtype:
        """The precision of cross-attention and kernel."""
        return torch.float32 if self.cross is None else self.cross.sketch.query.weight.dtype

    def set_precision(self, dtype: torch.dtype) -> Self:
        """Lets cross-attention, kernel and a two-sided encoder's matrices compute in ``dtype``; returns the network.

        An encoder that selects tokens between its blocks stays in float32, because a small rounding error there can
        make it keep other tokens: in bfloat16 relation scores moved by up to 0.07, against 0.002 with the
        cross-attention alone in bfloat16.
        """
        if isinstance(self.encoder, TwoSidedEncoder):
            self.encoder.photo_side.vit.set_precision(dtype)
        if self.cross is not None:
            self.cross.to(dtype)
            if isinstance(self.relation, KernelRelation):
                self.relation.downsample.to(dtype)
        return self


def as_zse(network: RetNetwork) -> Network:
    """Returns the network if it is one of ZSE-SBIR. Raises ModelError for one of another kind."""
    if not isinstance(network, Network):
        raise ModelError(
            f"{network.config.name} is a network of the kind {network.kind!r}, which gives one vector for each "
            "picture; this needs a network of ZSE-SBIR, such as the default one"
        )
    return network
