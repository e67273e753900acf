"""Which pairs of tokens a relation score rests on: each pair left out in turn (section 4.3, Fig. 8b)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from model.network import BestMatchRelation, KernelRelation, Network, Tokens, kernel_matrix

STRONGEST = 10


@dataclass(frozen=True)
class PairInfluence:
    """A pair of patch tokens, by cell, and the share of the relation score that is lost without it.

    drop: (score - score without the pair) / score; at most 1, below 0 where the pair lowers the score.
    """

    sketch_cell: int
    photo_cell: int
    drop: float


@torch.inference_mode()
def influential_pairs(
    network: Network, sketch: Tokens, photo: Tokens, count: int = STRONGEST
) -> tuple[PairInfluence, ...]:
    """The pairs whose leaving out lowers the relation score most, strongest first; only those that lower it.

    The paper's relation network compares blocks of 2x2 cells. A pair of blocks is named by those of their kept tokens
    that match best.

    Args:
        sketch, photo: one image each, as encoded, on the network's device.
        count: how many at most.

    Returns:
        Nothing where the relation network is untrained, or reads its tokens by the released view, which mixes
        patches so that no pair has a place.
    """
    config = network.config
    if not network.calibration.relation_trained or config.released_kernel_view:
        return ()
    s_side, p_side = network.project(sketch, "sketch"), network.project(photo, "photo")
    s_out, p_out = network.align(s_side, p_side)
    logit = network.relation(s_out, p_out)
    # What [Ret] adds to the logit stays, whichever pair is left out.
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
    """What the relation network says when one entry of the kernel matrix does not count, for every entry.

    Args:
        sketch, photo: one image each, after cross-attention.

    Returns:
        (n_s, n_p) float32 logits for best-match, where the token's next best match takes over, 0 if it has none;
        (cells, cells) for the paper's, where the entry is zero (Fig. 2d).
    """
    if isinstance(relation, KernelRelation):
        return _kernel_without_each(relation, sketch, photo)
    return _best_match_without_each(relation, sketch, photo)


def _best_match_without_each(relation: BestMatchRelation, sketch: Tokens, photo: Tokens) -> torch.Tensor:
    kernel = relation.kernel(sketch, photo)[0]
    worths = relation.worths(sketch, photo)
    # Only a pair that is the best of its row or of its column counts at all; without it the next best does.
    by_row, by_column = (_lost(k, worth[0]) for k, worth in zip((kernel, kernel.T), worths, strict=True))
    logits: torch.Tensor = relation(sketch, photo) - relation.scale / 2 * (by_row + by_column.T)
    return logits


def _lost(kernel: torch.Tensor, worth: torch.Tensor) -> torch.Tensor:
    """(n, m): how much of the weighted sum of row maxima goes with each entry. worth: (n,)."""
    if kernel.shape[1] == 1:
        # Nothing else to match: what is left counts 0, as a removed entry does.
        return worth[:, None] * kernel
    best, places = kernel.topk(2, dim=1)
    return torch.zeros_like(kernel).scatter(1, places[:, :1], (worth * (best[:, 0] - best[:, 1]))[:, None])


def _kernel_without_each(relation: KernelRelation, sketch: Tokens, photo: Tokens) -> torch.Tensor:
    kernel = relation.kernel(sketch, photo)[0]
    first, *rest = relation.mlp
    assert isinstance(first, nn.Linear)
    # The first layer is linear: without an entry it gives what it gave, less that entry's share.
    hidden = F.linear(kernel.flatten(), first.weight, first.bias) - (first.weight * kernel.flatten()).T
    for layer in rest:
        hidden = layer(hidden)
    logits = hidden.reshape(kernel.shape)
    # An entry that was zero is none: rounding should not make it one.
    return torch.where(kernel == 0, relation(sketch, photo), logits)


def _best_of_blocks(grid: int, sketch: Tokens, photo: Tokens, row: int, column: int) -> tuple[int, int]:
    """The numbers of the tokens that match best between two 2x2 blocks of cells, each of which kept some."""
    inside = []
    for tokens, block in ((sketch, row), (photo, column)):
        down, across = tokens.positions[0] // grid, tokens.positions[0] % grid
        inside.append((down // 2 * (grid // 2) + across // 2 == block).nonzero()[:, 0])
    s, p = inside
    best = int(kernel_matrix(sketch.patches[:, s], photo.patches[:, p])[0].argmax())
    return int(s[best // len(p)]), int(p[best % len(p)])
