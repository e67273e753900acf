"""Images to patch tokens: ViT's patch projection and the learnable tokenizer (section 3.1)."""

from __future__ import annotations

import torch
from torch import nn

from model.network.config import ModelConfig


class LearnableTokenizer(nn.Module):
    """Four convolutions of stride 2 without bias. They see far beyond one patch, because strokes are sparse.

    No ReLU follows the last one: it starts at zero in a new network, and behind a ReLU it would get no gradient.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        widths = (3, *config.tokenizer_widths, config.width)
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

    @property
    def last(self) -> nn.Conv2d:
        """The convolution whose output is added to the patch projection's."""
        layer = self.layers[-1]
        assert isinstance(layer, nn.Conv2d)
        return layer

    def start_at_zero(self) -> None:
        """Zeroes the last convolution, so that a pretrained patch projection starts undisturbed."""
        nn.init.zeros_(self.last.weight)


class Tokenizer(nn.Module):
    """X = Tokenizer(S) + S': the learnable tokenizer's output plus the patch projection's."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size)
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
