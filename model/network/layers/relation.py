"""Relation networks: from the kernel matrix of two images' tokens to one relation logit (section 3.5)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from model.network.config import ModelConfig
from model.network.tokens import Tokens


def kernel_matrix(sketch: torch.Tensor, photo: torch.Tensor) -> torch.Tensor:
    """Cosines of all token pairs (eq. 8): (b, n, d), (b, m, d) -> (b, n, m) float32; a zero token gives zeros.

    Computed in the tokens' precision.
    """
    # float16 knows no 1e-12, and a zero token must not be divided by zero.
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
    """The paper's relation network: the kernel matrix of downsampled tokens, flattened, goes through an MLP (eq. 9).

    The tokens are put back on the patch grid, a strided 2x2 convolution makes one cell of four, and the kernel matrix
    holds the cosines of all pairs of cells.
    """

    def __init__(self, config: ModelConfig) -> None:
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

    def kernel(self, sketch: Tokens, photo: Tokens) -> torch.Tensor:
        """(b, cells, cells) cosines, rows sketch, columns photo; zero where a cell has no kept token (Fig. 2d)."""
        return kernel_matrix(self._cells(sketch), self._cells(photo))

    def forward(self, sketch: Tokens, photo: Tokens) -> torch.Tensor:
        """Tokens after cross-attention, of b pairs -> (b,) float32 logits."""
        logits: torch.Tensor = self.mlp(self.kernel(sketch, photo).flatten(1))
        return logits[:, 0]

    def _cells(self, tokens: Tokens) -> torch.Tensor:
        patches = tokens.patches.to(self.downsample.weight.dtype)
        b, n, d = patches.shape
        area = self.grid**2
        if self.untransposed and n == area:
            return self._downsampled(patches.reshape(b, d, self.grid, self.grid))
        index = tokens.positions.unsqueeze(-1).expand(-1, -1, d)
        on_grid = patches.new_zeros(b, area, d).scatter(1, index, patches)
        cells = self._downsampled(on_grid.transpose(1, 2).reshape(b, d, self.grid, self.grid))
        if n == area:
            return cells
        kept = patches.new_zeros(b, area).scatter(1, tokens.positions, 1.0)
        any_kept = F.max_pool2d(kept.reshape(b, 1, self.grid, self.grid), 2).reshape(b, -1, 1)
        return cells * any_kept

    def _downsampled(self, maps: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.downsample(maps)
        return out.flatten(2).transpose(1, 2)


class PairRelation(KernelRelation):
    """The paper's relation network with a learned metric of concatenated cells instead of cosines (w/o Cos-K)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        width = config.kernel_width
        self.sketch_part = nn.Linear(width, width)
        self.photo_part = nn.Linear(width, width, bias=False)
        self.metric = nn.Linear(width, 1)

    def kernel(self, sketch: Tokens, photo: Tokens) -> torch.Tensor:
        """(b, cells, cells) in (0, 1), rows sketch, columns photo."""
        # A linear layer on a concatenated pair equals the sum of two linear layers, one on each half.
        s, p = self.sketch_part(self._cells(sketch).float()), self.photo_part(self._cells(photo).float())
        metric: torch.Tensor = self.metric(F.relu(s[:, :, None] + p[:, None])).sigmoid()
        return metric[..., 0]


class BestMatchRelation(nn.Module):
    """The cosines of each token's best match on the other side, averaged with learned token weights.

    With K_ij the cosine of sketch patch i and photo patch j, w_i and v_j the weights of the tokens, each computed from
    the token itself and summing to 1 over its image,

        logit = scale / 2 * (sum_i w_i max_j K_ij + sum_j v_j max_i K_ij) + bias.

    Positions on the grid play no part, so that a thing may be drawn anywhere; and the logit is a sum over matched
    pairs, so that each pair's share of it is known.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.sketch_worth = nn.Linear(config.width, 1)
        self.photo_worth = nn.Linear(config.width, 1)
        self.scale = nn.Parameter(torch.tensor(20.0))
        self.bias = nn.Parameter(torch.tensor(-15.0))

    def kernel(self, sketch: Tokens, photo: Tokens) -> torch.Tensor:
        """(b, n_s, n_p): the cosine of every pair of patch tokens."""
        return kernel_matrix(sketch.patches, photo.patches)

    def token_weights(self, sketch: Tokens, photo: Tokens) -> tuple[torch.Tensor, torch.Tensor]:
        """(b, n_s) and (b, n_p) float32 of aligned tokens; each row sums to 1."""
        w = self.sketch_worth(sketch.patches.float())[..., 0].softmax(dim=-1)
        v = self.photo_worth(photo.patches.float())[..., 0].softmax(dim=-1)
        return w, v

    def forward(self, sketch: Tokens, photo: Tokens) -> torch.Tensor:
        """Tokens after cross-attention, of b pairs -> (b,) float32 logits."""
        kernel = self.kernel(sketch, photo)
        w, v = self.token_weights(sketch, photo)
        matched = (w * kernel.amax(dim=2)).sum(dim=1) + (v * kernel.amax(dim=1)).sum(dim=1)
        return self.scale * matched / 2 + self.bias


RELATIONS: dict[str, type[KernelRelation | BestMatchRelation]] = {
    "kernel-mlp": KernelRelation,
    "best-match": BestMatchRelation,
    "pair-mlp": PairRelation,
}
