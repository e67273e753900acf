"""The paper's objective: quadruplets with a triplet loss and targets for relation scores (section 3.6).

Where the paper leaves something open, it does what the released code does.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from model.datasets import network_input
from model.network import Network
from model.papers.recipe import Quadruplets, Recipe
from model.papers.training_set import TrainingSet

# Targets for the relation scores of matching pairs and of other pairs.
MATCH, NO_MATCH = 0.99, 0.01


class QuadrupletObjective:
    """Samples of a sketch, another sketch of its class, a photo of it, and a photo of another class.

    The first sketch goes with the photo of its class through the cross-attention, the second one with the other
    photo. The relation scores of those pairs have targets (eq. 11); the triplet loss (eq. 10) is on [Ret] as it
    leaves the cross-attention: first sketch, its photo, the other photo. So is the regulariser of mean cosines.
    """

    def __init__(self, recipe: Recipe, data: TrainingSet, options: Quadruplets) -> None:
        self.recipe, self.data, self.options = recipe, data, options

    def losses(self, network: Network, step: int, side: int) -> dict[str, torch.Tensor]:
        """The losses by name; a step lowers their sum (eq. 12). Seed and step decide all random choices."""
        sketch_rows, photo_rows = self._batch(torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + step))
        ink = self.data.sketches[sketch_rows].float() / 255
        photos = self.data.photos[photo_rows].float() / 255
        count = self.options.samples
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.recipe.dtype == torch.bfloat16):
            drawn = network.encode(network_input(ink.expand(-1, 3, -1, -1), side), "sketch")
            shown = network.encode(network_input(photos, side), "photo")
            s = network.project(drawn, "sketch")
            p = network.project(shown, "photo")
            sketches, pictures = network.align(s, p)
            logits = network.relation_logits(sketches, pictures, s, p)
        losses: dict[str, torch.Tensor] = {}
        if self.options.triplet:
            anchor, photo = sketches.ret.float()[:count], pictures.ret.float()
            triplet = F.triplet_margin_loss(anchor, photo[:count], photo[count:], self.options.margin)
            losses["triplet"] = self.options.triplet * triplet
        if self.options.spread:
            gaps = [(mean_cosine(tokens.ret.float()) - self.options.cosine).abs() for tokens in (sketches, pictures)]
            losses["spread"] = self.options.spread * torch.stack(gaps).sum()
        if self.options.relation:
            target = torch.full((2 * count,), NO_MATCH)
            target[:count] = MATCH
            losses["relation"] = self.options.relation * F.mse_loss(logits.sigmoid(), target)
        return losses

    def _batch(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of the sketches, first ones before second ones, and of the photos, matching ones before others."""
        classes = len(self.data.photo_rows)
        own = torch.randint(classes, (self.options.samples,), generator=generator)
        other = (own + torch.randint(1, classes, (self.options.samples,), generator=generator)) % classes

        def one_of_each(rows: tuple[torch.Tensor, ...], labels: torch.Tensor) -> torch.Tensor:
            return torch.stack([rows[c][torch.randint(len(rows[c]), (), generator=generator)] for c in labels.tolist()])

        sketches = one_of_each(self.data.sketch_rows, torch.cat([own, own]))
        return sketches, one_of_each(self.data.photo_rows, torch.cat([own, other]))


def mean_cosine(vectors: torch.Tensor) -> torch.Tensor:
    """The mean cosine of all pairs of different vectors (n, d), n at least 2."""
    directions = F.normalize(vectors, dim=1)
    count = len(directions)
    # The sum over all pairs has the cosine of each vector with itself, which is 1.
    return (directions.sum(dim=0).square().sum() - count) / (count * (count - 1))
