"""The ViT encoder: tokenizer (section 3.1), [Ret] (3.2) and token selection (3.4). Its blocks are timm's."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

import torch
from torch import nn

from sketch_search.model.engine import Modality, ZseConfig
from sketch_search.model.engine.config import kept_count
from sketch_search.model.training.network.relation import Tokens, select_tokens
from sketch_search.model.training.network.vit import mean_attention


class LearnableTokenizer(nn.Module):
    """Four convolutions of stride 2 without bias. They see far beyond one patch, because strokes are sparse.

    No ReLU follows the last convolution: it starts at zero in a new network, and would get no gradient behind a ReLU.
    """

    def __init__(self, config: ZseConfig) -> None:
        super().__init__()
        widths = (3, *config.tokenizer_widths, config.vit_width)
        layers: list[nn.Module] = []
        for index, kernel in enumerate((7, 3, 3, 3)):
            if index:
                layers.append(nn.ReLU())
            layers.append(
                nn.Conv2d(widths[index], widths[index + 1], kernel, stride=2, padding=kernel // 2, bias=False)
            )
        self.layers = nn.Sequential(*layers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(b, 3, H, W) -> (b, d, H/16, W/16)."""
        out: torch.Tensor = self.layers(images)
        return out


class Tokenizer(nn.Module):
    """X = Tokenizer(S) + S': the learnable tokenizer's output plus the patch projection's."""

    def __init__(self, config: ZseConfig) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, config.vit_width, config.patch_size, stride=config.patch_size)
        self.learnable = LearnableTokenizer(config) if config.tokenizer == "learnable" else None
        self.average = config.released_tokenizer_average

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(b, 3, H, W) normalised pixels -> (b, grid*grid, d), cells counted row by row."""
        tokens: torch.Tensor = self.patch(images)
        if self.learnable is not None:
            tokens = tokens + self.learnable(images)
        if self.average:
            tokens = tokens / 2
        return tokens.flatten(2).transpose(1, 2)


@dataclass
class EncoderTrace:
    """A record of one forward pass, which ``Encoder`` fills.

    attention, positions: of each block (b, heads, n), [Ret]'s to patches, and (b, n), their cells. kept: (b, n) of
    each selection. patches: two-sided encoders' tokens of a sketch's patches, (2, b, n, e). everything, local: tokens
    of all patches of their photos, and (b, n, d), their local [Ret]. attends: whether two-sided encoders fill the rest.
    """

    attention: list[torch.Tensor] = field(default_factory=list)
    positions: list[torch.Tensor] = field(default_factory=list)
    kept: list[torch.Tensor] = field(default_factory=list)
    patches: torch.Tensor | None = None
    everything: Tokens | None = None
    local: torch.Tensor | None = None
    attends: bool = True


class Encoder(nn.Module):
    """Tokenizer, [Ret], position embedding and pre-norm blocks; both modalities share its weights."""

    def __init__(self, config: ZseConfig) -> None:
        from timm.models.vision_transformer import Block

        super().__init__()
        self.config, width = config, config.vit_width
        self.tokenizer = Tokenizer(config)
        self.ret = nn.Parameter(torch.zeros(1, 1, width)) if config.ret == "token" else None
        self.position = nn.Parameter(torch.zeros(1, 1 + config.grid**2, width))
        self.dropout = nn.Dropout(config.dropout)
        norm: Any = partial(nn.LayerNorm, eps=config.norm_eps)
        options = {"qkv_bias": True, "proj_drop": config.dropout, "norm_layer": norm}
        # The ViT of a photo side has scales after attention and MLP.
        options["init_values"] = 1.0 if config.photo_side else None
        self.blocks = nn.ModuleList(
            Block(width, config.heads, config.mlp_ratio, **options) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.project = nn.Linear(width, config.width) if config.encoder_width else nn.Identity()
        for parameter in (self.ret, self.position):
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, images: torch.Tensor, modality: Modality, trace: EncoderTrace | None = None) -> Tokens:
        """(b, 3, H, W) -> tokens (b, 1 + kept, d) after the final norm; ``trace`` records the pass."""
        return self.projected(*self.features(images, modality, trace))

    def projected(self, x: torch.Tensor, positions: torch.Tensor) -> Tokens:
        """Makes tokens of what ``features`` returns."""
        x = self.project(x)
        return Tokens(with_mean(x) if self.ret is None else x, positions)

    def features(
        self, images: torch.Tensor, modality: Modality, trace: EncoderTrace | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(b, 3, H, W) -> tokens before the projection (b, n, vit_width), and positions of patches (b, kept)."""
        patches = self.tokenizer(images)
        # The number of tokens before those of the patches.
        lead = 0 if self.ret is None else 1
        x = patches if self.ret is None else torch.cat([self.ret.expand(len(images), -1, -1), patches], dim=1)
        x = self.dropout(x + self.position[:, 1 - lead :])
        positions = torch.arange(patches.shape[1], device=x.device).expand(len(images), -1)
        rate = self.config.keep_rate(modality)
        block: Any
        for index, block in enumerate(self.blocks):
            y = block.norm1(x)
            x = x + block.ls1(block.attn(y))
            selects = index in self.config.select_after
            if trace is not None:
                trace.attention.append(mean_attention(block.attn, y, lead or x.shape[1])[:, :, lead:])
                trace.positions.append(positions)
            if rate < 1 and selects:
                importance = mean_attention(block.attn, y, 1)[:, :, 1:].mean(dim=1)
                chosen = select_tokens(importance, kept_count(importance.shape[1], rate))
                x = torch.cat([x[:, :1], x[:, 1:].take_along_dim(chosen[..., None], dim=1)], dim=1)
                positions = positions.gather(1, chosen)
            if trace is not None and selects:
                trace.kept.append(positions)
            x = x + block.ls2(block.mlp(block.norm2(x)))
        return self.norm(x), positions


class ConvolutionalEncoder(nn.Module):
    """A ResNet-50 instead of the ViT (w/o SA, table 3): its map at stride 16 gives the tokens, their mean [Ret]."""

    def __init__(self, config: ZseConfig) -> None:
        import timm

        super().__init__()
        resnet: Any = timm.create_model("resnet50", features_only=True, out_indices=(3,))
        self.map = resnet
        self.project = nn.Conv2d(resnet.feature_info.channels()[0], config.width, 1)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for layer in self.map.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eval()
        return self

    def forward(self, images: torch.Tensor, modality: Modality, trace: EncoderTrace | None = None) -> Tokens:
        """(b, 3, H, W) -> tokens (b, 1 + grid*grid, d); the trace gets a uniform attention."""
        cells = self.norm(self.project(self.map(images)[0]).flatten(2).transpose(1, 2))
        positions = torch.arange(cells.shape[1], device=cells.device).expand(len(images), -1)
        if trace is not None:
            trace.attention.append(cells.new_full((len(cells), 1, cells.shape[1]), 1 / cells.shape[1]))
            trace.positions.append(positions)
        return Tokens(with_mean(cells), positions)


def with_mean(patches: torch.Tensor) -> torch.Tensor:
    """Puts the mean of visual tokens in front of them, as [Ret]: (b, n, d) -> (b, 1 + n, d)."""
    return torch.cat([patches.mean(dim=1, keepdim=True), patches], dim=1)
