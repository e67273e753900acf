"""A convolutional encoder instead of the ViT: the ablation "w/o SA" of Table 3."""

from __future__ import annotations

import torch
from torch import nn

from model.network.config import Modality, ModelConfig
from model.network.layers.encoder import EncoderTrace
from model.network.tokens import Tokens

# The stage with stride 16, whose feature map has one cell for each patch, and the number of its channels.
_STAGE, _CHANNELS = 3, 1024


class ConvolutionalEncoder(nn.Module):
    """The cells of a ResNet-50's feature map are the patch tokens; their mean is [Ret].

    Group normalisation is used, so that the tokens of an image do not depend on its batch. It starts untrained.
    """

    def __init__(self, config: ModelConfig) -> None:
        # For this ablation alone; its import takes seconds.
        import timm

        super().__init__()
        self.map = timm.create_model("resnet50_gn", features_only=True, out_indices=(_STAGE,))
        self.project = nn.Conv2d(_CHANNELS, config.width, 1)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)

    def forward(self, images: torch.Tensor, modality: Modality, trace: EncoderTrace | None = None) -> Tokens:
        """(b, 3, H, W) -> tokens of (b, 1 + grid*grid, d); there is no attention to trace."""
        cells = self.project(self.map(images)[0]).flatten(2).transpose(1, 2)
        positions = torch.arange(cells.shape[1], device=images.device).expand(len(images), -1)
        return Tokens(self.norm(torch.cat([cells.mean(dim=1, keepdim=True), cells], dim=1)), positions)
