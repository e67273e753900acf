"""Costs of a network, computed from its configuration: multiply-adds, parameters, bytes of a photo in the index."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from model.network.config import Modality, ModelConfig, kept_count
from model.network.layers import ConvolutionalEncoder
from model.network.zse import Network

# An index stores features and positions in one byte each, and a scale of four bytes for each token.
_SCALE_BYTES = 4
_TOKENIZER_KERNELS = (7, 3, 3, 3)


@dataclass(frozen=True)
class Costs:
    """Costs of one configuration. Multiply-adds (MACs) count matrix products and convolutions.

    Attributes:
        sketch_macs, photo_macs: of what is done once for each image: encoding, and projecting for the cross-attention.
        pair_macs: of what is done for each pair: cross-attention and relation network.
        parameters: how many numbers the checkpoint holds.
        photo_bytes: tokens and positions of one photo as an index stores them.
    """

    sketch_macs: int
    photo_macs: int
    pair_macs: int
    parameters: int
    photo_bytes: int


def costs(config: ModelConfig) -> Costs:
    """All costs of a configuration."""
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in Network(config).parameters())
    tokens = config.token_count("photo")
    return Costs(
        encoder_macs(config, "sketch") + projection_macs(config, "sketch"),
        encoder_macs(config, "photo") + projection_macs(config, "photo"),
        pair_macs(config),
        parameters,
        tokens * (config.width + _SCALE_BYTES) + tokens - 1,
    )


def encoder_macs(config: ModelConfig, modality: Modality) -> int:
    """MACs of tokenizer and transformer blocks for one image."""
    if config.encoder != "vit":
        return _convolution_macs(config)
    width, hidden = config.width, int(config.width * config.mlp_ratio)
    total = config.grid**2 * 3 * config.patch_size**2 * width
    if config.tokenizer == "learnable":
        channels, side = (3, *config.tokenizer_widths, width), config.image_size
        for kernel, before, after in zip(_TOKENIZER_KERNELS, channels[:-1], channels[1:], strict=True):
            # Stride 2 with padding kernel // 2: half the side, rounded up.
            side = (side + 1) // 2
            total += side**2 * kernel**2 * before * after
    patches = config.grid**2
    rate = config.keep_rate(modality)
    for block in range(config.depth):
        tokens = patches + 1
        total += 4 * tokens * width**2 + 2 * tokens**2 * width
        if rate < 1 and block in config.select_after:
            # The attention row of [Ret] is computed a second time.
            total += tokens * width
            patches = kept_count(patches, rate)
        total += 2 * (patches + 1) * width * hidden
    return total


def projection_macs(config: ModelConfig, modality: Modality) -> int:
    """MACs of query, key and value of one image's tokens for the cross-attention."""
    return 3 * config.token_count(modality) * config.width**2 if config.cross_attention else 0


def pair_macs(config: ModelConfig) -> int:
    """MACs from two projected images to the relation logit."""
    width, sketch, photo = config.width, config.token_count("sketch"), config.token_count("photo")
    total = 0
    if config.cross_attention:
        if config.keep_cross < 1:
            # To select, the sketch's [Ret] is compared with all tokens of the photo.
            total += photo * width
            photo = 1 + kept_count(photo - 1, config.keep_cross)
        total += 4 * sketch * photo * width
        total += (sketch + photo) * (width**2 + 2 * width * config.cross_ffn)
    if config.relation == "best-match":
        return total + (sketch - 1) * (photo - 1) * width + (sketch + photo - 2) * width
    cells = (config.grid // 2) ** 2
    first, second = config.relation_hidden
    total += 2 * cells * 4 * width * config.kernel_width + cells**2 * config.kernel_width
    if config.relation == "pair-mlp":
        total += 2 * cells * config.kernel_width**2
    return total + cells**2 * first + first * second + second


def _convolution_macs(config: ModelConfig) -> int:
    # For this ablation alone; its import takes a while.
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        ConvolutionalEncoder(config)(torch.empty(1, 3, config.image_size, config.image_size), "photo")
    return int(counter.get_total_flops()) // 2
