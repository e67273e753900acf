"""Which pairs of tokens a relation score depends on: each pair is left out in turn (section 4.3, Fig. 8b)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from model.network import BestMatchRelation, KernelRelation, Network, RetNetwork, Tokens, kernel_matrix

STRONGEST = 10


@dataclass(frozen=True)
class PairInfluence:
    """A pair of patch tokens, given by their cells, and the share of the relation score that is lost without it.

    drop: (score - score without the pair) / score; at most 1, below 0 where the pair lowers the score.
    """

    sketch_cell: int
    photo_cell: int
    drop: float


@torch.inference_mode()
def influential_pairs(
    network: RetNetwork, sketch: Tokens, photo: Tokens, count: int = STRONGEST
) -> tuple[PairInfluence, ...]:
    """The pairs without which the relation score falls most, strongest first; only pairs without which it falls.

    The paper's relation network compares blocks of 2x2 cells. A pair of blocks is reported as the two of their kept
    tokens that match best.

    Args:
        sketch, photo: one image each, as encoded, on the network's device.
        count: how many at most.

    Returns:
        No pairs where there is no relation network or an untrained one, or where it views the tokens as released
        networks do: that view mixes patches, so that an entry of the kernel matrix belongs to no pair of them.
    """
    if not isinstance(network, Network) or not network.calibration.relation_trained:
        return ()
    config = network.config
    if config.released_kernel_view:
        return ()
    s_side, p_side = network.project(sketch, "sketch"), network.project(photo, "photo")
    s_out, p_out = network.align(s_side, p_side)
    logit = network.relation(s_out, p_out)
    # The [Ret] term of the logit does not depend on the pairs.
    added = network.relate(s_side, p_side) - logit
    without = logits_without_each(network.relation, s_out, p_out)
    drops = (1 - (without + added).double().sigmoid() / (logit + added).double().sigmoid()).cpu()
    order = drops.flatten().argsort(descending=True, stable=True)[:count].tolist()
    blocks = isinstance(network.relation, KernelRelation)
    found = []
    for row, column in (divmod(place, drops.shape[1]) for place in order):
        if drops[row, column] <= 0:
            break
        i, j = _best_of_blocks(config.grid, s_out, p_out, row, column) if blocks else (row, column)
        pair = int(s_out.positions[0, i]), int(p_out.positions[0, j])
        found.append(PairInfluence(*pair, float(drops[row, column])))
    return tuple(found)


@torch.inference_mode()
def logits_without_each(relation: KernelRelation | BestMatchRelation, sketch: Tokens, photo: Tokens) -> torch.Tensor:
    """The relation logits without each entry of the kernel matrix in turn.

    Args:
        sketch, photo: one image each, after cross-attention.

    Returns:
        (n_s, n_p) float32 logits for best-match: the next best match takes the entry's place, or 0 if there is none;
        (cells, cells) for the paper's relation network: the entry is set to zero (Fig. 2d).
    """
    if isinstance(relation, KernelRelation):
        return _kernel_without_each(relation, sketch, photo)
    return _best_match_without_each(relation, sketch, photo)


def _best_match_without_each(relation: BestMatchRelation, sketch: Tokens, photo: Tokens) -> torch.Tensor:
    kernel = relation.kernel(sketch, photo)[0]
    weights = relation.token_weights(sketch, photo)
    # A pair counts only where it is the best of its row or column; without it, the next best one counts.
    by_row, by_column = (_lost(k, weight[0]) for k, weight in zip((kernel, kernel.T), weights, strict=True))
    logits: torch.Tensor = relation(sketch, photo) - relation.scale / 2 * (by_row + by_column.T)
    return logits


def _lost(kernel: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """(n, m): by how much the weighted sum of row maxima falls without each entry; weight: (n,), of the rows."""
    if kernel.shape[1] == 1:
        # There is no next best match: a removed entry counts as 0.
        return weight[:, None] * kernel
    best, places = kernel.topk(2, dim=1)
    return torch.zeros_like(kernel).scatter(1, places[:, :1], (weight * (best[:, 0] - best[:, 1]))[:, None])


def _kernel_without_each(relation: KernelRelation, sketch: Tokens, photo: Tokens) -> torch.Tensor:
    kernel = relation.kernel(sketch, photo)[0]
    first, *rest = relation.mlp
    assert isinstance(first, nn.Linear)
    # The first layer is linear: without an entry its output lacks that entry's share.
    hidden = F.linear(kernel.flatten(), first.weight, first.bias) - (first.weight * kernel.flatten()).T
    for layer in rest:
        hidden = layer(hidden)
    logits = hidden.reshape(kernel.shape)
    # Without an entry that is zero anyway, nothing changes; rounding must not say otherwise.
    return torch.where(kernel == 0, relation(sketch, photo), logits)


def _best_of_blocks(grid: int, sketch: Tokens, photo: Tokens, row: int, column: int) -> tuple[int, int]:
    """The indices of the two tokens that match best between two 2x2 blocks of cells, each of which kept some tokens."""
    inside = []
    for tokens, block in ((sketch, row), (photo, column)):
        down, across = tokens.positions[0] // grid, tokens.positions[0] % grid
        inside.append((down // 2 * (grid // 2) + across // 2 == block).nonzero()[:, 0])
    s, p = inside
    best = int(kernel_matrix(sketch.patches[:, s], photo.patches[:, p])[0].argmax())
    return int(s[best // len(p)]), int(p[best % len(p)])
