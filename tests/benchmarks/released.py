"""The released computation in plain eager PyTorch, with which the speed of this project's networks is compared.

The sketch is repeated for each photo, attention is written out, and every projection is computed again for each pair.
It shares only the weights with a network; tests check that its results are equal.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from model.network.layers.cross import CrossBranch
from model.network.layers.relation import KernelRelation
from model.network.zse import Network

EPS = 1e-6


def released_tokens(network: Network, images: torch.Tensor) -> torch.Tensor:
    """(b, 3, H, W) -> (b, n, d), without token selection."""
    encoder: Any = network.encoder
    tokenizer = encoder.tokenizer
    patches, learnt = tokenizer.patch(images), tokenizer.learnable.layers(images)
    x = ((patches + learnt) / 2).flatten(2).transpose(1, 2)
    x = torch.cat([encoder.ret.repeat(len(x), 1, 1), x], dim=1) + encoder.position
    for block in encoder.blocks:
        q, k, v = block.attn.qkv(block.norm1(x)).chunk(3, dim=-1)
        x = x + block.attn.proj(attention(q, k, v, block.attn.heads))
        x = x + block.mlp(block.norm2(x))
    tokens: torch.Tensor = encoder.norm(x)
    return tokens


def released_logits(network: Network, sketch: torch.Tensor, photos: torch.Tensor) -> torch.Tensor:
    """One sketch's tokens (1, n, d) and those of b photos (b, n, d) -> (b,) relation logits."""
    cross, relation = network.cross, network.relation
    assert cross is not None
    assert isinstance(relation, KernelRelation)
    sketches = sketch.repeat(len(photos), 1, 1)
    seen = updated(cross.sketch, sketches, photos, cross.heads)
    shown = updated(cross.photo, photos, sketches, cross.heads)
    rows, columns = (downsampled(relation, x[:, 1:]) for x in (seen, shown))
    norms = rows.norm(dim=-1)[:, :, None] * columns.norm(dim=-1)[:, None]
    kernel = (rows @ columns.transpose(1, 2) / norms).nan_to_num()
    logits: torch.Tensor = relation.mlp(kernel.flatten(1))
    return logits[:, 0]


def updated(branch: CrossBranch, x: torch.Tensor, other: torch.Tensor, heads: int) -> torch.Tensor:
    """Attention of x (b, n, d) to the keys of the other side, with its own values (a quirk of the released code)."""
    y = x + branch.out(attention(branch.query(x), branch.key(other), branch.value(x), heads))
    y = normed(branch.norm1, y)
    return normed(branch.norm2, y + branch.ffn(y))


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """(b, n, d) each -> (b, n, d)."""
    b, n, d = q.shape
    q, k, v = (x.view(b, n, heads, d // heads).transpose(1, 2) for x in (q, k, v))
    weights = F.softmax(q @ k.transpose(-2, -1) / (d // heads) ** 0.5, dim=-1)
    return (weights @ v).transpose(1, 2).reshape(b, n, d)


def normed(norm: Any, x: torch.Tensor) -> torch.Tensor:
    """a * (x - mean) / (std + eps) + b."""
    mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
    out: torch.Tensor = norm.weight * (x - mean) / (std + EPS) + norm.bias
    return out


def downsampled(relation: KernelRelation, patches: torch.Tensor) -> torch.Tensor:
    """(b, g * g, d), viewed as a map without a transpose -> (b, g * g / 4, width)."""
    b, _, d = patches.shape
    maps: torch.Tensor = relation.downsample(patches.reshape(b, d, relation.grid, relation.grid))
    return maps.flatten(2).transpose(1, 2)
