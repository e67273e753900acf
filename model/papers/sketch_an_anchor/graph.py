"""Adapted anchors: graph convolution over the joined graph of word and visual anchors (section 3.5)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from model.network import Anchor
from model.papers.sketch_an_anchor.semantic import similarities, widened


def joined_edges(of_each: list[torch.Tensor], sharpness: float) -> torch.Tensor:
    """The normalised adjacency matrix of the joined graph: (g c, g c) for g graphs of c anchors.

    Each graph is fully connected, by its similarities. The anchors of one class in different graphs are connected as
    strongly as an anchor with itself. Other anchors of different graphs have no edge, so the softmax leaves them out.

    of_each: (c, c) similarities of each graph. sharpness: what they are multiplied by before the softmax of each row.
    """
    count = len(of_each[0])
    rows = []
    for number, own in enumerate(of_each):
        none = torch.full_like(own, -torch.inf)
        across = torch.where(torch.eye(count, dtype=torch.bool), own.diagonal()[:, None], none)
        rows.append(torch.cat([own if other == number else across for other in range(len(of_each))], dim=1))
    return (torch.cat(rows) * sharpness).softmax(dim=1)


class AnchorGraph(nn.Module):
    """V <- A V W, layer after layer (eq. 5). It has no non-linearity, as the equation has none.

    The weights start orthogonal, so that at first only the edges change how alike anchors are.
    """

    def __init__(self, units: int, layers: int, sharpness: float) -> None:
        super().__init__()
        self.units, self.sharpness = units, sharpness
        self.layers = nn.ModuleList(nn.Linear(units, units, bias=False) for _ in range(layers))
        for layer in self.layers:
            nn.init.orthogonal_(layer.weight)  # type: ignore[arg-type]

    def forward(self, anchors: Mapping[Anchor, torch.Tensor]) -> dict[Anchor, torch.Tensor]:
        """Anchors (c, d) of any widths up to ``units`` -> adapted anchors (c, units)."""
        edges = joined_edges([similarities(of_one) for of_one in anchors.values()], self.sharpness)
        nodes = torch.cat([widened(of_one, self.units) for of_one in anchors.values()])
        for layer in self.layers:
            nodes = layer(edges @ nodes)
        return dict(zip(anchors, nodes.chunk(len(anchors)), strict=True))
