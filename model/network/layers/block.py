"""One transformer block of a ViT: self-attention and a perceptron, each behind a LayerNorm and a residual connection.

The same computation, names of weights and initialisation as timm's ``Block``. It is not taken from timm, because
importing timm brings torchvision and PyTorch's compiler: seconds and memory for every program that searches or indexes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """A pre-norm block; dropout follows both projections and the perceptron's hidden layer."""

    def __init__(self, width: int, heads: int, *, mlp_ratio: float, dropout: float, norm_eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attn = SelfAttention(width, heads, dropout)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = Perceptron(width, int(width * mlp_ratio), dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, n, d) -> (b, n, d)."""
        return self.transformed(x + self.attn(self.norm1(x)))

    def attended(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The first half of the block, and the attention weights of [Ret] in it: see `SelfAttention.with_ret_row`."""
        output, ret_row = self.attn.with_ret_row(self.norm1(x))
        return x + output, ret_row

    def transformed(self, x: torch.Tensor) -> torch.Tensor:
        """The second half of the block, (b, n, d) -> (b, n, d)."""
        hidden: torch.Tensor = x + self.mlp(self.norm2(x))
        return hidden


class SelfAttention(nn.Module):
    """Self-attention with several heads (eqs. 4 and 5)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, n, d) -> (b, n, d)."""
        return self._output(*self._split(x))

    def with_ret_row(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The output, and the attention weights of [Ret] (eq. 7).

        x (b, n, d) -> output (b, n, d) and weights (b, heads, n-1) of [Ret] for each patch token; the softmax is over
        all n keys. The fused kernel computes the output but does not return weights, so the one row of [Ret] is
        computed again.
        """
        q, k, v = self._split(x)
        ret_row = (q[:, :, :1].float() @ k.float().transpose(-2, -1) * self.scale).softmax(dim=-1)
        return self._output(q, k, v), ret_row[:, :, 0, 1:]

    def _split(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values, each (b, heads, n, d / heads)."""
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def _output(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        mixed = F.scaled_dot_product_attention(q, k, v)
        output: torch.Tensor = self.proj_drop(self.proj(mixed.transpose(1, 2).flatten(2)))
        return output


class Perceptron(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.drop1 = nn.Dropout(dropout)
        self.fc2 = nn.Linear(hidden, width)
        self.drop2 = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, n, d) -> (b, n, d)."""
        output: torch.Tensor = self.drop2(self.fc2(self.drop1(self.act(self.fc1(x)))))
        return output
