"""Makes a relation logit of a sketch's and a photo's tokens, by cross-attention (3.3) and relation network (3.5).

``project`` runs once for each image, and all other steps once for each pair::

      sketch tokens x_s                               photo tokens x_p
          | project                                       | project
      q_s, k_s, v_s                                   q_p, k_p, v_p
          |      with r_CA < 1, [Ret] of the sketch selects patch tokens of the photo
      attention(q_s, k_p, v_p)                        attention(q_p, k_s, v_s)
          |                                               |
      out, + x_s, norm, feed-forward, +, norm         out, + x_p, norm, feed-forward, +, norm
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from sketch_search.model.engine import Modality, ModelConfig, ZseConfig
from sketch_search.model.engine.config import kept_count


@dataclass(frozen=True)
class Tokens:
    """A batch of one modality: features (b, n, d), [Ret] first; positions (b, n-1), cells ascending.

    summary: (b, e) of two-sided sketches. regions: (b, m, d), local [Ret] of 2 x 2 patches of photos, by rows.
    """

    features: torch.Tensor
    positions: torch.Tensor
    summary: torch.Tensor | None = None
    regions: torch.Tensor | None = None

    def __len__(self) -> int:
        return self.features.shape[0]

    def __getitem__(self, rows: slice | torch.Tensor | Sequence[int]) -> "Tokens":
        parts: dict[str, Any] = {name: None if part is None else part[rows] for name, part in vars(self).items()}
        return Tokens(**parts)

    @property
    def ret(self) -> torch.Tensor:
        """(b, d): the retrieval token of each image, not normalised."""
        return self.features[:, 0]

    @property
    def patches(self) -> torch.Tensor:
        return self.features[:, 1:]

    @staticmethod
    def of_ret(ret: torch.Tensor) -> "Tokens":
        """Makes tokens from retrieval tokens (b, d) alone."""
        return Tokens(ret.unsqueeze(1), torch.empty(len(ret), 0, dtype=torch.int64, device=ret.device))


def as_tensor(values: torch.Tensor | NDArray[Any], device: torch.device) -> torch.Tensor:
    """Returns a tensor, or a copy of an array, on a device."""
    # An array may lie in memory that must not be written, and PyTorch warns about tensors that share it.
    return (values if isinstance(values, torch.Tensor) else torch.tensor(values)).to(device)


@dataclass(frozen=True)
class Side:
    """The part of a pair's score that depends on one image. features (b, n, d), positions (b, n-1), ret (b, d).

    query, key, value: (b, heads, n, d_k); the other side receives the value (eq. 6), in released networks this one.
    """

    features: torch.Tensor
    positions: torch.Tensor
    ret: torch.Tensor
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor

    def __len__(self) -> int:
        return self.features.shape[0]

    def rows(self, index: slice | torch.Tensor) -> "Side":
        """Takes the images at ``index``."""
        return Side(*(part[index] for part in vars(self).values()))


class StdNorm(nn.Module):
    """a * (x - mean) / (std + eps) + b with the unbiased std: the released cross-attention's normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        width = x.shape[-1]
        return F.layer_norm(x, (width,), self.weight * (1 - 1 / width) ** 0.5, self.bias, eps=1e-12)


class CrossBranch(nn.Module):
    """The weights that update one modality: four projections, two post-norms and a feed-forward network."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        norm = StdNorm if config.released_cross_norm else nn.LayerNorm
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.norm1, self.norm2 = norm(width), norm(width)
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
    """A cross-attention layer with two branches. Both branches read the features from before the layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.keep = config.cross_heads, config.keep_cross
        self.value_from_query = config.released_value_from_query
        # A mean of visual tokens is none: others do not attend to it.
        self.first_key = 1 if config.ret == "mean" else 0
        self.sketch, self.photo = CrossBranch(config), CrossBranch(config)

    def project(self, tokens: Tokens, modality: Modality) -> Side:
        """Computes query, key and value of one modality. Key and value come from the branch that reads them (eq. 6)."""
        branch, other = (self.sketch, self.photo) if modality == "sketch" else (self.photo, self.sketch)
        x = tokens.features.to(branch.query.weight.dtype)
        value = branch.value if self.value_from_query else other.value
        q, k, v = (self._split(layer(x)) for layer in (branch.query, other.key, value))
        return Side(x, tokens.positions, tokens.ret, q, k[:, :, self.first_key :], v[:, :, self.first_key :])

    def forward(self, sketch: Side, photo: Side) -> tuple[Tokens, Tokens]:
        """Informs b sketches, or one for all, and b photos by each other: the tokens of both (3.4 if r_CA < 1)."""
        if self.keep < 1:
            photo = self._at_selected(sketch, photo)
        values = (sketch, photo) if self.value_from_query else (photo, sketch)
        for_sketch = dot_product_attention(sketch.query, photo.key, values[0].value)
        for_photo = dot_product_attention(photo.query, sketch.key, values[1].value)
        drawn = Tokens(self.sketch(sketch.features, for_sketch), sketch.positions.expand(len(photo), -1))
        return drawn, Tokens(self.photo(photo.features, for_photo), photo.positions)

    def attention(self, sketch: Side, photo: Side) -> tuple[torch.Tensor, torch.Tensor]:
        """Computes attention weights, for explanations: (b, heads, n_s, n_p) and (b, heads, n_p, n_s) float32."""
        if self.keep < 1:
            photo = self._at_selected(sketch, photo)
        forth, back = attention_weights(sketch.query, photo.key), attention_weights(photo.query, sketch.key)
        return F.pad(forth, (self.first_key, 0)), F.pad(back, (self.first_key, 0))

    def _at_selected(self, sketch: Side, photo: Side) -> Side:
        """Keeps ceil(r_CA n) patch tokens of each photo: those to which the sketch's [Ret] attends most (eq. 7)."""
        importance = attention_weights(sketch.query[:, :, :1], photo.key)[:, :, 0, 1:].mean(dim=1)
        chosen = select_tokens(importance, kept_count(importance.shape[1], self.keep))
        rows = F.pad(chosen + 1, (1, 0))
        parts = (photo.query, photo.key, photo.value)
        query, key, value = (part.take_along_dim(rows[:, None, :, None], dim=2) for part in parts)
        features = photo.features.take_along_dim(rows[..., None], dim=1)
        return Side(features, photo.positions.gather(1, chosen), photo.ret, query, key, value)

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        b, n, d = x.shape
        return x.reshape(b, n, self.heads, d // self.heads).transpose(1, 2)


class Unaligned(CrossAttention):
    """Leaves tokens as they left the encoder: ZSE-SBIR without cross-attention (table 3)."""

    def __init__(self) -> None:
        nn.Module.__init__(self)

    def project(self, tokens: Tokens, modality: Modality) -> Side:
        # A single number for each token, whose attention is the same for all.
        same = torch.zeros_like(tokens.features[:, None, :, :1])
        return Side(tokens.features, tokens.positions, tokens.ret, same, same, same)

    def forward(self, sketch: Side, photo: Side) -> tuple[Tokens, Tokens]:
        drawn = Tokens(sketch.features.expand(len(photo), -1, -1), sketch.positions.expand(len(photo), -1))
        return drawn, Tokens(photo.features, photo.positions)


def select_tokens(importance: torch.Tensor, count: int) -> torch.Tensor:
    """Chooses the ``count`` most important of (b, n): (b, count) indices, in ascending order; ties go to the first."""
    order = importance.argsort(dim=1, descending=True, stable=True)
    return order[:, :count].sort(dim=1).values


def attention_weights(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Computes the softmax of scaled products: (b, heads, n, d_k), (b, heads, m, d_k) -> (b, heads, n, m) float32."""
    products = query.float() @ key.float().transpose(-2, -1)
    return torch.softmax(products * query.shape[-1] ** -0.5, dim=-1)


def dot_product_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Attends: (b, heads, n, d_k), (b, heads, m, d_k) twice -> (b, heads, n, d_k); a first dimension may be 1."""
    if query.device.type != "cpu" or query.dtype == torch.float32:
        count = max(map(len, (query, key, value)))
        q, k, v = (part if len(part) == count else part.expand(count, -1, -1, -1) for part in (query, key, value))
        return F.scaled_dot_product_attention(q, k, v)
    # In bfloat16 on a CPU, plain products take a third to a half of the fused kernel's time.
    weights: torch.Tensor = (query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)).softmax(dim=-1)
    return weights @ value


def kernel_matrix(sketch: torch.Tensor, photo: torch.Tensor) -> torch.Tensor:
    """Computes the cosines of all token pairs (eq. 8): (b, n, d), (b, m, d) -> (b, n, m). A zero token gives zeros."""
    # float16 has no 1e-12, and a zero token must not be divided by zero.
    eps = max(1e-12, torch.finfo(sketch.dtype).tiny)
    return (F.normalize(sketch, dim=-1, eps=eps) @ F.normalize(photo, dim=-1, eps=eps).transpose(-2, -1)).float()


class RetTerm(nn.Module):
    """A learned multiple of the cosine of the two [Ret] tokens as they left the encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(10.0))

    def forward(self, sketch_ret: torch.Tensor, photo_ret: torch.Tensor) -> torch.Tensor:
        """(b, d), (b, d) -> (b,) float32."""
        return self.scale * F.cosine_similarity(sketch_ret.float(), photo_ret.float(), dim=-1)


class KernelRelation(nn.Module):
    """The paper's relation network: the kernel matrix of downsampled tokens, flattened, goes through an MLP (eq. 9)."""

    def __init__(self, config: ZseConfig) -> None:
        super().__init__()
        self.grid = config.grid
        self.untransposed = config.released_kernel_view
        cells = (config.grid // 2) ** 2
        first, second = config.relation_hidden
        self.downsample = nn.Conv2d(config.width, config.kernel_width, 2, stride=2)
        self.mlp = nn.Sequential(
            nn.Linear(cells**2, first),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(first, second),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(second, 1),
        )

    def forward(self, sketch: Tokens, photo: Tokens) -> torch.Tensor:
        """Tokens after cross-attention, of b pairs -> (b,) float32 logits."""
        return self.read(self.kernel(sketch, photo))

    def kernel(self, sketch: Tokens, photo: Tokens) -> torch.Tensor:
        """Compares all pairs of cells of aligned tokens (eq. 8): (b, cells, cells) float32, rows sketch."""
        return kernel_matrix(self._cells(sketch), self._cells(photo))

    def read(self, kernel: torch.Tensor) -> torch.Tensor:
        """Turns kernel matrices (b, cells, cells) into (b,) float32 logits."""
        logits: torch.Tensor = self.mlp(kernel.flatten(1))
        return logits[:, 0]

    def _cells(self, tokens: Tokens) -> torch.Tensor:
        """Downsamples tokens on their grid to (b, cells, k), zero for cells without tokens (Fig. 2d)."""
        patches = tokens.patches.to(self.downsample.weight.dtype)
        b, n, d = patches.shape
        area = self.grid**2
        if self.untransposed and n == area:
            return self._downsample(patches.reshape(b, d, self.grid, self.grid))
        index = tokens.positions.unsqueeze(-1).expand(-1, -1, d)
        on_grid = patches.new_zeros(b, area, d).scatter(1, index, patches)
        cells = self._downsample(on_grid.transpose(1, 2).reshape(b, d, self.grid, self.grid))
        if n == area:
            return cells
        kept = patches.new_zeros(b, area).scatter(1, tokens.positions, 1.0)
        any_kept = F.max_pool2d(kept.reshape(b, 1, self.grid, self.grid), 2).reshape(b, -1, 1)
        return cells * any_kept

    def _downsample(self, maps: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.downsample(maps)
        return out.flatten(2).transpose(1, 2)


class PairRelation(KernelRelation):
    """The paper's relation network with a metric learned on concatenated cells instead of cosines (w/o Cos-K)."""

    def __init__(self, config: ZseConfig) -> None:
        super().__init__(config)
        width = config.kernel_width
        self.sketch_part, self.photo_part = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.metric = nn.Linear(width, 1)

    def kernel(self, sketch: Tokens, photo: Tokens) -> torch.Tensor:
        # A linear layer on a concatenated pair is the sum of two, one on each half.
        s, p = self.sketch_part(self._cells(sketch).float()), self.photo_part(self._cells(photo).float())
        metric: torch.Tensor = self.metric(F.relu(s[:, :, None] + p[:, None])).sigmoid()
        return metric[..., 0]


class BestMatchRelation(nn.Module):
    """scale / 2 * (sum_i w_i max_j K_ij + sum_j v_j max_i K_ij) + bias, without positions.

    K_ij: cosines of sketch patch i and photo patch j; w_i, v_j: learned token weights, which sum to 1.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.sketch_worth, self.photo_worth = (nn.Linear(config.width, 1) for _ in range(2))
        self.scale, self.bias = nn.Parameter(torch.tensor(20.0)), nn.Parameter(torch.tensor(-15.0))

    def token_weights(self, sketch: Tokens, photo: Tokens) -> tuple[torch.Tensor, torch.Tensor]:
        """Computes the weights of aligned tokens, (b, n_s) and (b, n_p) float32. Each row sums to 1."""
        w = self.sketch_worth(sketch.patches.float())[..., 0].softmax(dim=-1)
        v = self.photo_worth(photo.patches.float())[..., 0].softmax(dim=-1)
        return w, v

    def forward(self, sketch: Tokens, photo: Tokens) -> torch.Tensor:
        """Tokens after cross-attention, of b pairs -> (b,) float32 logits."""
        kernel = kernel_matrix(sketch.patches, photo.patches)
        w, v = self.token_weights(sketch, photo)
        matched = (w * kernel.amax(dim=2)).sum(dim=1) + (v * kernel.amax(dim=1)).sum(dim=1)
        return self.scale * matched / 2 + self.bias
