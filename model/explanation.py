"""Why a photo matches a sketch, taken from one forward pass over the pair."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from model.encoder import EncoderTrace
from model.network import Network
from model.relation import kernel_matrix


@dataclass(frozen=True)
class SelfAttention:
    """What one image's [Ret] looked at, and which tokens survived.

    Attributes:
        heads: (heads, grid, grid) float32, [Ret]'s attention in the last block, zero where a token had been dropped.
        kept: one (grid, grid) bool map for each selection, in order.
    """

    heads: torch.Tensor
    kept: tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Explanation:
    """One pair, explained. Cells count the patch grid row by row from the top left.

    Attributes:
        grid: patches along one side.
        sketch, photo: self-attention and selection of each.
        sketch_cells, photo_cells: (n_s,) and (n_p,) int64, the cells of the patch tokens compared below.
        sketch_to_photo, photo_to_sketch: (heads, n_s, n_p) and (heads, n_p, n_s) cross-attention between patch
            tokens, None without cross-attention.
        correspondence: (n_s, n_p) float32 in [-1, 1], cosines of patch tokens after cross-attention (eq. 8).
        relation_score: in (0, 1), None where the checkpoint's relation network is untrained.
        ret_distance: Euclidean distance of the L2-normalised [Ret] tokens, in [0, 2].
    """

    grid: int
    sketch: SelfAttention
    photo: SelfAttention
    sketch_cells: torch.Tensor
    photo_cells: torch.Tensor
    sketch_to_photo: torch.Tensor | None
    photo_to_sketch: torch.Tensor | None
    correspondence: torch.Tensor
    relation_score: float | None
    ret_distance: float

    def matches(self) -> list[tuple[int, int, float]]:
        """For each sketch token its best photo token: (sketch cell, photo cell, cosine), strongest first."""
        best, column = self.correspondence.max(dim=1)
        order = best.argsort(descending=True, stable=True).tolist()
        return [(int(self.sketch_cells[i]), int(self.photo_cells[column[i]]), float(best[i])) for i in order]


@torch.inference_mode()
def explain(network: Network, sketch: torch.Tensor, photo: torch.Tensor) -> Explanation:
    """sketch, photo: (1, 3, H, W) prepared images on the network's device."""
    grid = network.config.grid
    sketch_trace, photo_trace = EncoderTrace(), EncoderTrace()
    s = network.encode(sketch, "sketch", sketch_trace)
    p = network.encode(photo, "photo", photo_trace)
    s_side, p_side = network.project(s, "sketch"), network.project(p, "photo")
    forth = back = None
    if network.cross is not None:
        forth, back = (weights[0, :, 1:, 1:].cpu() for weights in network.cross.attention(s_side, p_side))
        if network.cross.keep < 1:
            chosen = network.cross.select(s_side, p_side)[0].cpu()
            forth, back = forth[:, :, chosen], back[:, chosen]
    s_out, p_out = network.align(s_side, p_side)
    normal = torch.nn.functional.normalize
    trained = bool(set(network.config.methods) - {"ret"})
    return Explanation(
        grid=grid,
        sketch=_self_attention(sketch_trace, grid),
        photo=_self_attention(photo_trace, grid),
        sketch_cells=s_out.positions[0].cpu(),
        photo_cells=p_out.positions[0].cpu(),
        sketch_to_photo=forth,
        photo_to_sketch=back,
        correspondence=kernel_matrix(s_out.patches, p_out.patches)[0].cpu(),
        relation_score=float(network.relate(s_side, p_side).sigmoid()) if trained else None,
        ret_distance=float((normal(s.ret.float(), dim=-1) - normal(p.ret.float(), dim=-1)).norm()),
    )


def _self_attention(trace: EncoderTrace, grid: int) -> SelfAttention:
    attention, positions = trace.attention[-1][0].cpu(), trace.positions[-1][0].cpu()
    heads = torch.zeros(attention.shape[0], grid * grid)
    heads[:, positions] = attention
    kept = []
    for cells in trace.kept:
        mask = torch.zeros(grid * grid, dtype=torch.bool)
        mask[cells[0].cpu()] = True
        kept.append(mask.reshape(grid, grid))
    return SelfAttention(heads.reshape(-1, grid, grid), tuple(kept))
