"""What one step of the default training sees and what it is told: lists of pairs, and the pretrained ViT as teacher."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from model.datasets import network_input
from model.network import BestMatchRelation, Network
from model.training.augmentation import Augmentation
from model.training.objectives.losses import (
    bank_loss,
    belief_loss,
    calibration_loss,
    contrast_loss,
    instance_loss,
    listwise_loss,
    teacher_loss,
)
from model.training.objectives.teacher import Teacher
from model.training.recipe import Recipe
from model.training.training_set import TrainingSet


class ListwiseObjective:
    """Some classes, near ones among them; every sketch against every photo of the batch and the teacher's of all.

    With several photos of a class in a batch, each with a sketch drawn from it, a sketch has to find its own photo.
    """

    def __init__(self, recipe: Recipe, data: TrainingSet, teacher: Teacher) -> None:
        self.recipe, self.data, self.teacher = recipe, data, teacher
        self.class_beliefs = teacher.class_means(teacher.beliefs)
        means = F.normalize(teacher.class_means(teacher.features), dim=1)
        self._neighbours = (means @ means.T).fill_diagonal_(-2).argsort(dim=1, descending=True)

    def losses(self, network: Network, step: int, side: int) -> dict[str, torch.Tensor]:
        """By name; their sum is what a step lowers. Everything follows from the recipe's seed and the step."""
        recipe, weights, teacher = self.recipe, self.recipe.weights, self.teacher
        vary = Augmentation(recipe.seed * 1_000_003 + step)
        labels, sketch_rows, photo_rows = self._batch(vary.generator)
        drawn_rows = torch.randint(len(self.data.photos), (recipe.batch.drawn,), generator=vary.generator)
        ink = vary.sketches(1 - self.data.sketches[sketch_rows].float() / 255)
        if recipe.batch.drawn:
            lines = vary.sketches(vary.drawn(self.data.photos[drawn_rows].float() / 255))
            ink = torch.cat([ink, lines])
        photos = vary.photos(self.data.photos[photo_rows].float() / 255)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=recipe.bf16):
            s = network.encode(network_input(1 - ink.expand(-1, 3, -1, -1), side), "sketch")
            p = network.encode(network_input(photos, side), "photo")
            logits = torch.empty(0)
            if weights.relation:
                count = len(photo_rows)
                first = torch.arange(count) * recipe.batch.sketches
                sketch_side = network.project(s[first], "sketch").rows(torch.arange(count).repeat_interleave(count))
                photo_side = network.project(p, "photo").rows(torch.arange(count).repeat(count))
                logits = network.relate(sketch_side, photo_side).view(count, count)
        real, drawn = s.ret.float()[: len(sketch_rows)], s.ret.float()[len(sketch_rows) :]
        seen = p.ret.float()
        sketch_labels = labels.repeat_interleave(recipe.batch.sketches)
        losses: dict[str, torch.Tensor] = {}
        if weights.bank:
            bank = bank_loss(real, sketch_labels, teacher, recipe.temperature)
            if len(drawn):
                bank = bank + 0.25 * instance_loss(drawn, drawn_rows, teacher, recipe.temperature)
            losses["bank"] = weights.bank * bank
        if weights.contrast:
            losses["contrast"] = weights.contrast * contrast_loss(real, seen, recipe.temperature)
        if weights.labels and teacher.beliefs.shape[1]:
            beliefs = [self.class_beliefs[sketch_labels], teacher.beliefs[drawn_rows], teacher.beliefs[photo_rows]]
            losses["labels"] = weights.labels * belief_loss(torch.cat([real, drawn, seen]), torch.cat(beliefs), teacher)
        if weights.teacher:
            same = torch.cat([photo_rows, drawn_rows])
            losses["teacher"] = weights.teacher * teacher_loss(torch.cat([seen, drawn]), same, teacher)
        if weights.relation:
            losses["relation"] = weights.relation * listwise_loss(logits)
            if isinstance(network.relation, BestMatchRelation):
                losses["calibration"] = 0.1 * calibration_loss(logits, network.relation.bias)
        return losses

    def _batch(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Classes and rows of the photos (n,), and rows of the sketches (n * sketches,), those of a photo together."""
        batch = self.recipe.batch
        classes = self._classes(generator)
        if batch.photos == 1:
            sketches = [_pick(self.data.sketch_rows[c], batch.sketches, generator) for c in classes.tolist()]
            photos = [_pick(self.data.photo_rows[c], 1, generator) for c in classes.tolist()]
            return classes, torch.cat(sketches), torch.cat(photos)
        chosen = []
        for c in classes.tolist():
            drawn_from = self.data.pairs[c]
            order = torch.randperm(len(drawn_from), generator=generator)[: batch.photos]
            chosen += [(c, *drawn_from[n]) for n in order.tolist()]
        labels = torch.tensor([c for c, _, _ in chosen])
        photo_rows = torch.tensor([photo for _, photo, _ in chosen])
        return labels, torch.cat([_pick(rows, batch.sketches, generator) for _, _, rows in chosen]), photo_rows

    def _classes(self, generator: torch.Generator) -> torch.Tensor:
        count = min(self.recipe.batch.classes, self.teacher.classes)
        order = torch.randperm(self.teacher.classes, generator=generator)
        near = self._neighbours[order[0], : round(self.recipe.batch.near * count)]
        chosen = torch.cat([order[:1], near])
        rest = order[~torch.isin(order, chosen)]
        return torch.cat([chosen, rest])[:count]


def _pick(rows: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    return rows[torch.randint(len(rows), (count,), generator=generator)]
