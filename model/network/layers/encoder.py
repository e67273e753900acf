"""The ViT encoder with a retrieval token (section 3.2) and token selection (section 3.4)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from model.network.config import Modality, ModelConfig, kept_count
from model.network.layers.block import Block
from model.network.layers.tokenizer import Tokenizer
from model.network.tokens import Tokens


@dataclass
class EncoderTrace:
    """A record of one forward pass, for explanations. Pass an empty one to ``Encoder``; it appends to the lists.

    Attributes:
        attention: for each block (b, heads, n), the attention of [Ret] to the patch tokens that were left.
        positions: for each block (b, n), the grid cells of those tokens.
        kept: for each selection (b, n), the grid cells of the tokens that it kept.
    """

    attention: list[torch.Tensor] = field(default_factory=list)
    positions: list[torch.Tensor] = field(default_factory=list)
    kept: list[torch.Tensor] = field(default_factory=list)


class Encoder(nn.Module):
    """Tokenizer, [Ret], position embedding and pre-norm blocks; both modalities share its weights."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = Tokenizer(config)
        self.ret = nn.Parameter(torch.zeros(1, 1, config.width))
        self.position = nn.Parameter(torch.zeros(1, 1 + config.grid**2, config.width))
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            Block(
                config.width,
                config.heads,
                mlp_ratio=config.mlp_ratio,
                dropout=config.dropout,
                norm_eps=config.norm_eps,
            )
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        nn.init.trunc_normal_(self.ret, std=0.02)
        nn.init.trunc_normal_(self.position, std=0.02)

    def forward(self, images: torch.Tensor, modality: Modality, trace: EncoderTrace | None = None) -> Tokens:
        """(b, 3, H, W) -> tokens (b, 1 + kept, d) after the final norm; ``trace`` records the pass."""
        patches = self.tokenizer(images)
        x = torch.cat([self.ret.expand(len(images), -1, -1), patches], dim=1) + self.position
        x = self.dropout(x)
        positions = torch.arange(patches.shape[1], device=x.device).expand(len(images), -1)
        rate = self.config.keep_rate(modality)
        block: Any
        for index, block in enumerate(self.blocks):
            selects = rate < 1 and index in self.config.select_after
            if not selects and trace is None:
                x = block(x)
                continue
            x, attention = block.attended(x)
            if trace is not None:
                trace.attention.append(attention)
                trace.positions.append(positions)
            if selects:
                chosen = select_tokens(attention.mean(dim=1), rate)
                x = torch.cat([x[:, :1], gather(x[:, 1:], chosen)], dim=1)
                positions = positions.gather(1, chosen)
            if trace is not None and index in self.config.select_after:
                trace.kept.append(positions)
            x = block.transformed(x)
        x = self.norm(x)
        if self.config.pooling == "mean":
            x = torch.cat([x[:, 1:].mean(dim=1, keepdim=True), x[:, 1:]], dim=1)
        return Tokens(x, positions)


def select_tokens(importance: torch.Tensor, rate: float) -> torch.Tensor:
    """Indices (b, ceil(rate*n)) of the most important of n tokens, in ascending order; ties go to the first.

    importance: (b, n), higher is kept.
    """
    count = kept_count(importance.shape[1], rate)
    order = importance.argsort(dim=1, descending=True, stable=True)
    return order[:, :count].sort(dim=1).values


def gather(tokens: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Rows ``index`` (b, k) of ``tokens`` (b, n, d)."""
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
