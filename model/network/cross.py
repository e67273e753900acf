"""Cross-modal attention between the tokens of a sketch and of a photo (section 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import nn

from model.network.config import Modality, ModelConfig
from model.network.encoder import gather, select
from model.network.tokens import Tokens

# Numbers that a CPU works on at once, at most. A softmax rounds what is left of a row differently, and which image
# that is must not matter.
LANES = 32


@dataclass(frozen=True)
class Side:
    """One modality's half of the cross-attention: all of it that does not depend on the other half.

    Attributes:
        features, positions: the encoder's tokens, as in ``Tokens``, in the precision of the cross-attention.
        ret: (b, d), the retrieval token as it left the encoder, in float32 where a ``Matcher`` made it.
        query: (b, heads, n, d_k), asks the other side; None where there is no cross-attention.
        key: (b, heads, n, d_k), is asked by the other side.
        value: (b, heads, n, d_k), goes to the other side (eq. 6), or stays on its own in released networks.
    """

    features: torch.Tensor
    positions: torch.Tensor
    ret: torch.Tensor
    query: torch.Tensor | None = None
    key: torch.Tensor | None = None
    value: torch.Tensor | None = None

    def __len__(self) -> int:
        return self.features.shape[0]

    def rows(self, index: slice | torch.Tensor) -> Side:
        """The images ``index``, which may repeat."""
        return self._map(lambda t: t[index])

    @staticmethod
    def cat(parts: Sequence[Side]) -> Side:
        """All images of ``parts`` in order, which are of one modality."""
        return parts[0]._map(lambda *same: torch.cat(same), *parts[1:])

    def _map(self, change: Callable[..., torch.Tensor], *others: Side) -> Side:
        names = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        return Side(**{name: change(*(getattr(side, name) for side in (self, *others))) for name in names})


class StdNorm(nn.Module):
    """a * (x - mean) / (std + eps) + b with the unbiased std: the released cross-attention's own normalisation.

    Computed by the fused kernel, which has no place for an eps outside the root: results differ by at most eps / std,
    relatively, where eps is 1e-6 and the tokens' std some tenths or more.
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
        """x (b, n, d) and what its heads gathered (b, heads, n, d_k) -> (b, n, d)."""
        y = self.norm1(x + self.dropout(self.out(attended.transpose(1, 2).flatten(2))))
        z: torch.Tensor = self.norm2(y + self.dropout(self.ffn(y)))
        return z


class CrossAttention(nn.Module):
    """One layer, two branches; both read the features from before the layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.cross_heads
        self.keep = config.keep_cross
        self.value_from_query = config.released_value_from_query
        self.sketch = CrossBranch(config)
        self.photo = CrossBranch(config)

    def project(self, tokens: Tokens, modality: Modality) -> Side:
        """The query of its own branch, key and value of the other's (eq. 6; released: the value of its own)."""
        own, other = (self.sketch, self.photo) if modality == "sketch" else (self.photo, self.sketch)
        x = tokens.features.to(own.query.weight.dtype)
        value = own.value if self.value_from_query else other.value
        q, k, v = (self._split(layer(x)) for layer in (own.query, other.key, value))
        return Side(x, tokens.positions, tokens.ret, q, k, v)

    def forward(self, sketch: Side, photo: Side) -> tuple[Tokens, Tokens]:
        """b sketches, or one, beside b photos -> the b tokens of each, informed by the other.

        With r_CA < 1 the sketch's [Ret] first chooses the photo's tokens; the dropped ones neither serve as keys
        nor go on as queries (section 3.4).
        """
        if self.keep < 1:
            photo = self._select(sketch, photo)
        x_s, q_s, k_s, v_s = sketch.features, sketch.query, sketch.key, sketch.value
        x_p, q_p, k_p, v_p = photo.features, photo.query, photo.key, photo.value
        if self.value_from_query:
            v_s, v_p = v_p, v_s
        for_sketch = attend(q_s, k_p, v_p)  # type: ignore[arg-type]
        for_photo = attend(q_p, k_s, v_s)  # type: ignore[arg-type]
        return (
            Tokens(self.sketch(x_s, for_sketch), sketch.positions.expand(len(photo), -1)),
            Tokens(self.photo(x_p, for_photo), photo.positions),
        )

    def attention(self, sketch: Side, photo: Side) -> tuple[torch.Tensor, torch.Tensor]:
        """Sketch-to-photo (b, heads, n_s, n_p) and photo-to-sketch (b, heads, n_p, n_s) weights, for explanations."""
        assert sketch.query is not None
        assert sketch.key is not None
        assert photo.query is not None
        assert photo.key is not None
        scale = sketch.query.shape[-1] ** -0.5
        forth = (sketch.query.float() @ photo.key.float().transpose(-2, -1) * scale).softmax(-1)
        back = (photo.query.float() @ sketch.key.float().transpose(-2, -1) * scale).softmax(-1)
        return forth, back

    def select(self, sketch: Side, photo: Side) -> torch.Tensor:
        """(b, ceil(r_CA*n)): the photo patch tokens, by index, that the sketch's [Ret] keeps (eq. 7 across)."""
        assert sketch.query is not None
        assert photo.key is not None
        scale = sketch.query.shape[-1] ** -0.5
        row = (sketch.query[:, :, :1].float() @ photo.key.float().transpose(-2, -1) * scale).softmax(-1)
        return select(row[:, :, 0, 1:].mean(dim=1), self.keep)

    def _select(self, sketch: Side, photo: Side) -> Side:
        chosen = self.select(sketch, photo)
        rows = torch.cat([torch.zeros_like(chosen[:, :1]), chosen + 1], dim=1)

        def by_head(t: torch.Tensor | None) -> torch.Tensor:
            assert t is not None
            return t.gather(2, rows[:, None, :, None].expand(-1, t.shape[1], -1, t.shape[3]))

        return Side(
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


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """What every query gathers: (b, heads, n, d_k), (b, heads, m, d_k), (b, heads, m, d_k) -> (b, heads, n, d_k).

    The first dimension of each may also be 1: that image's for the whole batch.
    """
    count, heads, n, width = query.shape
    if count > 1 and len(key) == len(value) == 1 and count * n % LANES == 0:
        # All ask one image: as one image with many queries they need a few large products, not many small ones.
        merged = query.transpose(0, 1).reshape(1, heads, count * n, width)
        return attend(merged, key, value).view(heads, count, n, width).transpose(0, 1)
    if query.device.type != "cpu" or query.dtype == torch.float32 or query.requires_grad:
        count = max(map(len, (query, key, value)))
        q, k, v = (t.expand(count, -1, -1, -1) for t in (query, key, value))
        return F.scaled_dot_product_attention(q, k, v)
    # Written out, a third of the fused kernel's time in bfloat16 on a CPU. The softmax runs over the last dimension
    # but one, since only then does it work on whole vectors.
    weights: torch.Tensor = (key @ (query * width**-0.5).transpose(-2, -1)).softmax(dim=-2)
    return weights.transpose(-2, -1) @ value
