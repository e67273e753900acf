"""The attention of the tokens that become the vector of a picture, for explanations."""

from __future__ import annotations

from typing import Any

import torch


def mean_attention(attn: Any, x: torch.Tensor, count: int) -> torch.Tensor:
    """The attention of a block of timm, by head, as the mean of its first tokens.

    x: (b, n, d), what enters the attention, normalised. count: how many tokens. Returns (b, heads, n).
    """
    b, n, _ = x.shape
    q, k, _ = attn.qkv(x).reshape(b, n, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    q, k = attn.q_norm(q[:, :, :count]), attn.k_norm(k)
    weights: torch.Tensor = (q.float() @ k.float().transpose(-2, -1) * attn.scale).softmax(dim=-1)
    return weights.mean(dim=2)
