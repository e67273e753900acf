"""The network of Sketch-an-Anchor (Ribeiro and Ponti, 2023): a ViT with retrieval tokens and gated projections."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from sketch_search.model.engine import UNCALIBRATED, Calibration, Modality
from sketch_search.model.engine.config import Size
from sketch_search.model.training.network.encoder import EncoderTrace
from sketch_search.model.training.network.relation import Tokens
from sketch_search.model.training.network.ret_network import RetNetwork
from sketch_search.model.training.network.vit import OneVectorConfig, load_vit, mean_attention

# The training pulls a retrieval token to one of these: a word vector of the class, or the mean of its photos.
Anchor = Literal["word", "visual"]
ANCHORS: tuple[Anchor, ...] = ("word", "visual")


@dataclass(frozen=True, kw_only=True)
class AnchorConfig(OneVectorConfig):
    """Sketch-an-Anchor. anchors: each with a token and a projection (3.4), none for the baseline (3.2); units: 4.2."""

    anchors: tuple[Anchor, ...] = ANCHORS
    units: Size = 512

    def problems(self) -> list[str]:
        known = self.anchors == tuple(name for name in ANCHORS if name in self.anchors)
        return super().problems() + ([] if known else [f"anchors must be some of {ANCHORS}, in this order"])

    @property
    def width(self) -> int:
        return self.units


class GatedProjection(nn.Module):
    """A linear projection whose outputs are gated by themselves (Miech et al., 2017): y * sigmoid(G y), y = P x."""

    def __init__(self, width: int, units: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, units)
        self.gate = nn.Linear(units, units)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.project(x)
        gated: torch.Tensor = y * self.gate(y).sigmoid()
        return gated


class DynamicAverage(nn.Module):
    """The average of some vectors by weights that depend on them (Sukhbaatar et al., 2015). It starts as the mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, 1, bias=False)
        nn.init.zeros_(self.query.weight)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """(b, k, d) -> (b, d)."""
        average: torch.Tensor = (self.query(vectors).softmax(dim=1) * vectors).sum(dim=1)
        return average


class AnchorNetwork(RetNetwork):
    """A ViT in which retrieval tokens take the place of the class token; one network for sketches and photos (3.4)."""

    kind: ClassVar[str] = "sketch-an-anchor"
    config_kind = AnchorConfig
    config: AnchorConfig

    def __init__(self, config: AnchorConfig, calibration: Calibration = UNCALIBRATED) -> None:
        super().__init__(config, calibration)
        count, width = max(1, len(config.anchors)), config.vit.width
        self.vit = config.vit.build(config.image_size)
        if self.vit.cls_token is not None:
            # The retrieval tokens take the place of the class token.
            self.vit.cls_token.requires_grad_(False)
        self.tokens = nn.Parameter(torch.zeros(1, count, width))
        self.projections = nn.ModuleList(GatedProjection(width, config.units) for _ in range(count))
        self.average = DynamicAverage(config.width) if count > 1 else None
        nn.init.trunc_normal_(self.tokens, std=0.02)

    def retrieval_tokens(self, images: torch.Tensor, trace: EncoderTrace | None = None) -> torch.Tensor:
        """(b, 3, H, W) normalised pixels -> (b, k, d), the retrieval tokens as they leave the ViT."""
        vit, count = self.vit, self.tokens.shape[1]
        x = vit._pos_embed(vit.patch_embed(images))
        x = vit.norm_pre(torch.cat([self.tokens.expand(len(x), -1, -1), x[:, 1:]], dim=1))
        blocks: Any = vit.blocks
        for block in blocks:
            if trace is not None:
                attention = mean_attention(block.attn, block.norm1(x), count)[:, :, -(self.config.grid**2) :]
                trace.attention.append(attention)
                trace.positions.append(torch.arange(attention.shape[2], device=x.device).expand(len(x), -1))
            x = block(x)
        tokens: torch.Tensor = vit.norm(x)[:, :count]
        return tokens

    def represent(self, tokens: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """(b, k, d) from ``retrieval_tokens`` -> (b, width), the retrieval vectors, and (b, units) of each anchor."""
        hidden = tuple(project(token) for project, token in zip(self.projections, tokens.unbind(1), strict=True))
        return hidden[0] if self.average is None else self.average(torch.stack(hidden, dim=1)), hidden

    def _encode(self, images: torch.Tensor, modality: Modality, trace: EncoderTrace | None) -> Tokens:
        """(b, 3, H, W) normalised pixels -> tokens that are [Ret] alone, the retrieval vectors."""
        return Tokens.of_ret(self.represent(self.retrieval_tokens(images, trace))[0])


def anchor_network_from(config: AnchorConfig, weights: dict[str, torch.Tensor], seed: int = 0) -> AnchorNetwork:
    """Makes a network whose ViT starts with weights under timm's names. Raises ModelError for another ViT's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = AnchorNetwork(config)
    load_vit(network.vit, weights)
    blank = torch.zeros(1, 3, config.image_size, config.image_size)
    with torch.no_grad():
        # Each retrieval token starts as the class token, position included.
        network.tokens.copy_(network.vit._pos_embed(network.vit.patch_embed(blank))[:, :1].expand_as(network.tokens))
    return network
