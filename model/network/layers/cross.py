"""Cross-modal attention between the tokens of a sketch and of a photo (section 3.3).

How the tokens of one pair flow; ``project`` runs once for each image, all else once for each pair::

      sketch tokens x_s                               photo tokens x_p
          |                                               |
          | project                                       | project
          v                                               v
      q_s, k_s, v_s                                   q_p, k_p, v_p
          |                                               |
          |  if r_CA < 1: [Ret] of the sketch selects the photo's patch tokens
          |                                               |
          v                                               v
      attention(q_s, k_p, v_p)                        attention(q_p, k_s, v_s)
          |                                               |
          v                                               v
      sketch branch: out, + x_s, norm,                photo branch: out, + x_p, norm,
        feed-forward, +, norm                           feed-forward, +, norm
          |                                               |
          v                                               v
      sketch tokens that know the photo               photo tokens that know the sketch
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from model.network.config import Modality, ModelConfig
from model.network.layers.encoder import gather, select_tokens
from model.network.tokens import Tokens

# The most numbers that a vector instruction of a CPU works on at once: 32 of 16 bits in 512 bits. A softmax over rows
# of any other length handles the remainder by other code, which rounds differently.
LANES = 32

AnySide = TypeVar("AnySide", bound="Side")


@dataclass(frozen=True)
class Side:
    """All that a pair's score needs of one of its two images, computed without the other one.

    This class is for networks without cross-attention; ``CrossSide`` is for those with it.

    Attributes:
        features: (b, n, d), as in ``Tokens``, in the precision of the cross-attention.
        positions: (b, n-1) int64, as in ``Tokens``.
        ret: (b, d), the retrieval token as it left the encoder, in float32 where a ``Matcher`` made it.
    """

    features: torch.Tensor
    positions: torch.Tensor
    ret: torch.Tensor

    def __len__(self) -> int:
        return self.features.shape[0]

    def tensors(self) -> tuple[torch.Tensor, ...]:
        """All attributes, in the order in which the constructor takes them; b is the first dimension of each."""
        return self.features, self.positions, self.ret

    def rows(self, index: slice | torch.Tensor) -> Self:
        """The images at ``index``; an index may occur several times."""
        return type(self)(*(tensor[index] for tensor in self.tensors()))

    @staticmethod
    def cat(parts: Sequence[AnySide]) -> AnySide:
        """All images of ``parts`` in order. All parts must be of one modality."""
        return type(parts[0])(*map(torch.cat, zip(*(part.tensors() for part in parts), strict=True)))


@dataclass(frozen=True)
class CrossSide(Side):
    """One modality's half of the cross-attention: its projections.

    Attributes:
        query: (b, heads, n, d_k), compared with the other side's keys.
        key: (b, heads, n, d_k), compared with the other side's queries.
        value: (b, heads, n, d_k), what the other side receives (eq. 6); in released networks, what this side receives.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor

    def tensors(self) -> tuple[torch.Tensor, ...]:
        """All attributes, in the order in which the constructor takes them."""
        return self.features, self.positions, self.ret, self.query, self.key, self.value


class StdNorm(nn.Module):
    """a * (x - mean) / (std + eps) + b with the unbiased std: the released cross-attention's own normalisation.

    It is computed by PyTorch's fused layer norm, which cannot add eps outside the square root. The relative difference
    is at most eps / std, where eps is 1e-6 and the std of the tokens is some tenths or more.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Same shape and dtype as x (..., width); a constant row gives b."""
        width = x.shape[-1]
        return F.layer_norm(x, (width,), self.weight * (1 - 1 / width) ** 0.5, self.bias, eps=1e-12)


class CrossBranch(nn.Module):
    """The weights that update one modality: four projections, two post-norms and a feed-forward network."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        norm = StdNorm if config.released_cross_norm else nn.LayerNorm
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.norm1 = norm(width)
        self.norm2 = norm(width)
        self.ffn = nn.Sequential(
            nn.Linear(width, config.cross_ffn),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.cross_ffn, width),
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """Features x (b, n, d) and the attention's output for them (b, heads, n, d_k) -> new features (b, n, d)."""
        y = self.norm1(x + self.dropout(self.out(attended.transpose(1, 2).flatten(2))))
        z: torch.Tensor = self.norm2(y + self.dropout(self.ffn(y)))
        return z


class CrossAttention(nn.Module):
    """One layer with two branches. Both branches read the features from before the layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.cross_heads
        self.keep = config.keep_cross
        self.value_from_query = config.released_value_from_query
        self.sketch = CrossBranch(config)
        self.photo = CrossBranch(config)

    def project(self, tokens: Tokens, modality: Modality) -> CrossSide:
        """Query, key and value of one modality's tokens.

        The query comes from the modality's own branch. Key and value come from the other branch, which reads them
        (eq. 6); in released networks the value comes from the own branch, too.
        """
        own, other = (self.sketch, self.photo) if modality == "sketch" else (self.photo, self.sketch)
        x = tokens.features.to(own.query.weight.dtype)
        value = own.value if self.value_from_query else other.value
        q, k, v = (self._split(layer(x)) for layer in (own.query, other.key, value))
        return CrossSide(x, tokens.positions, tokens.ret, q, k, v)

    def forward(self, sketch: CrossSide, photo: CrossSide) -> tuple[Tokens, Tokens]:
        """b sketches, or one for all of them, with b photos -> the b tokens of each, informed by the other.

        With r_CA < 1 only the photo tokens that the sketch's [Ret] selects take part, as keys and as queries
        (section 3.4).
        """
        if self.keep < 1:
            photo = self._at_selected(sketch, photo)
        own_values = self.value_from_query
        for_sketch = dot_product_attention(sketch.query, photo.key, sketch.value if own_values else photo.value)
        for_photo = dot_product_attention(photo.query, sketch.key, photo.value if own_values else sketch.value)
        return (
            Tokens(self.sketch(sketch.features, for_sketch), sketch.positions.expand(len(photo), -1)),
            Tokens(self.photo(photo.features, for_photo), photo.positions),
        )

    def attention(self, sketch: CrossSide, photo: CrossSide) -> tuple[torch.Tensor, torch.Tensor]:
        """The attention weights, for explanations: (b, heads, n_s, n_p) float32, from sketch tokens to photo tokens,
        and (b, heads, n_p, n_s), from photo tokens to sketch tokens. All photo tokens take part, whatever r_CA is.
        """
        scale = sketch.query.shape[-1] ** -0.5
        forth = (sketch.query.float() @ photo.key.float().transpose(-2, -1) * scale).softmax(-1)
        back = (photo.query.float() @ sketch.key.float().transpose(-2, -1) * scale).softmax(-1)
        return forth, back

    def selected_patches(self, sketch: CrossSide, photo: CrossSide) -> torch.Tensor:
        """(b, ceil(r_CA*n)) int64: indices of the photo patch tokens to which the sketch's [Ret] attends most, in
        ascending order (eq. 7, across modalities).
        """
        scale = sketch.query.shape[-1] ** -0.5
        row = (sketch.query[:, :, :1].float() @ photo.key.float().transpose(-2, -1) * scale).softmax(-1)
        return select_tokens(row[:, :, 0, 1:].mean(dim=1), self.keep)

    def _at_selected(self, sketch: CrossSide, photo: CrossSide) -> CrossSide:
        chosen = self.selected_patches(sketch, photo)
        rows = torch.cat([torch.zeros_like(chosen[:, :1]), chosen + 1], dim=1)

        def by_head(t: torch.Tensor) -> torch.Tensor:
            return t.gather(2, rows[:, None, :, None].expand(-1, t.shape[1], -1, t.shape[3]))

        return CrossSide(
            gather(photo.features, rows),
            photo.positions.gather(1, chosen),
            photo.ret,
            by_head(photo.query),
            by_head(photo.key),
            by_head(photo.value),
        )

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        b, n, d = x.shape
        return x.reshape(b, n, self.heads, d // self.heads).transpose(1, 2)


def dot_product_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Scaled dot-product attention: (b, heads, n, d_k), (b, heads, m, d_k), (b, heads, m, d_k) -> (b, heads, n, d_k).

    The first dimension of each argument may also be 1; that image is then used for the whole batch.
    """
    count, heads, n, width = query.shape
    if count > 1 and len(key) == len(value) == 1 and count * n % LANES == 0:
        # Many images query one: treated as one image with many queries, they take a few large products instead of many
        # small ones. Only without a remainder (see LANES), or the last image's result would depend on its place.
        merged = query.transpose(0, 1).reshape(1, heads, count * n, width)
        return dot_product_attention(merged, key, value).view(heads, count, n, width).transpose(0, 1)
    if query.device.type != "cpu" or query.dtype == torch.float32 or query.requires_grad:
        count = max(map(len, (query, key, value)))
        q, k, v = (t.expand(count, -1, -1, -1) for t in (query, key, value))
        return F.scaled_dot_product_attention(q, k, v)
    # In bfloat16 on a CPU, plain products take a third of the fused kernel's time. The softmax runs over the last
    # dimension but one, because only there does it work on whole vectors.
    weights: torch.Tensor = (key @ (query * width**-0.5).transpose(-2, -1)).softmax(dim=-2)
    return weights.transpose(-2, -1) @ value
