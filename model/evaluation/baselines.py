"""The baselines ViT-Ret and ViT-Vis: a pretrained ViT without further training."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from model.datasets import Corpus
from model.errors import ModelError
from model.evaluation.scoring import VISUAL, score_matrices
from model.matcher import Matcher
from model.network import PRESETS, ModelConfig, from_backbone

# Width of one head in the usual ViTs of all sizes.
_HEAD_WIDTH = 64


def backbone_matcher(
    weights: dict[str, torch.Tensor], sha256: str, device: str = "cpu", heads: int | None = None
) -> Matcher:
    """A ViT as a matcher at the input size it was trained at; its class token is [Ret].

    Args:
        weights: under timm's key names.
        sha256: identifies the weights.
        device: where to compute.
        heads: of the self-attention; None where each is 64 wide.

    Raises:
        ModelError: the weights are not those of a plain ViT with 16x16 patches and a class token.
    """
    return Matcher(from_backbone(backbone_config(weights, heads), weights).to(device), sha256)


def backbone_config(weights: dict[str, torch.Tensor], heads: int | None = None) -> ModelConfig:
    """The encoder of such weights: no learnable tokenizer, all tokens kept, nothing after the encoder."""
    try:
        _, tokens, width = weights["pos_embed"].shape
        hidden = weights["blocks.0.mlp.fc1.weight"].shape[0]
    except (KeyError, ValueError) as error:
        raise ModelError(f"this is no plain ViT: {error}") from error
    grid = math.isqrt(tokens - 1)
    presets = [name for name, config in PRESETS.items() if config.width == width]
    return ModelConfig(
        name=f"ViT like that of {presets[0]}" if presets else f"ViT of {width} dims",
        width=width,
        depth=sum(name.startswith("blocks.") and name.endswith(".norm1.weight") for name in weights),
        heads=heads or max(1, width // _HEAD_WIDTH),
        cross_heads=1,
        image_size=16 * grid,
        mlp_ratio=hidden / width,
        tokenizer="plain",
        select_after=(),
        cross_attention=False,
        relation="best-match",
    )


def backbone_matrices(matcher: Matcher, corpus: Corpus) -> dict[str, NDArray[np.floating]]:
    """Scores (sketches, photos) as ``score_matrices`` gives them.

    "vit-ret": minus the distance of the normalised class tokens, whose place [Ret] takes; "vit-vis": that of the
    means of the visual tokens.
    """
    matrices = score_matrices(matcher, corpus, ("ret",), visual=True)
    return {"vit-ret": matrices["ret"], "vit-vis": matrices[VISUAL]}
