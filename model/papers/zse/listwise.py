"""The default objective: list-wise losses over the pairs of a batch, and a pretrained ViT as teacher."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from model.datasets import network_input
from model.network import BestMatchRelation, Network, Tokens
from model.papers.augmentation import SIDE, Augmentation
from model.papers.recipe import Recipe
from model.papers.training_set import TrainingSet
from model.papers.zse.batches import Rows, Sampler
from model.papers.zse.losses import (
    bank_loss,
    calibration_loss,
    contrast_loss,
    instance_loss,
    label_loss,
    listwise_loss,
    mates_loss,
    teacher_loss,
)
from model.papers.zse.names import named_targets
from model.papers.zse.teacher import Teacher

# Weight, in the bank loss, of line drawings that have to find their photo.
_LINES = 0.25


@dataclass(frozen=True)
class _Ret:
    """[Ret] of a step's pictures, float32, in the order of ``Rows``; drawn: of all line drawings."""

    sketches: torch.Tensor
    further: torch.Tensor
    drawn: torch.Tensor
    photos: torch.Tensor


class ListwiseObjective:
    """Every sketch of a batch is compared with every photo of the batch, and with the teacher's features of all photos.

    Line drawings have to find their photo among these features. Sketches of classes without photos have to find each
    other, and what ImageNet calls them. A batch holds some classes, part of which look alike. If it holds several
    photos of a class, each sketch has to find the photo that it was drawn from.
    """

    def __init__(self, recipe: Recipe, data: TrainingSet, teacher: Teacher) -> None:
        self.recipe, self.data, self.teacher = recipe, data, teacher
        self.sampler = Sampler(recipe.batch, data, teacher)
        self.class_probabilities = teacher.class_means(teacher.probabilities)
        self.further_targets = named_targets(data.further, teacher.probabilities.shape[1])

    def losses(self, network: Network, step: int, side: int) -> dict[str, torch.Tensor]:
        """The losses by name; a step lowers their sum. The recipe's seed and the step decide all random choices."""
        recipe = self.recipe
        augment = Augmentation(recipe.seed * 1_000_003 + step)
        rows = self.sampler.sample(augment.generator)
        ink = self._ink(rows, augment)
        photos = augment.photos(self.data.photos[rows.photos].float() / 255)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=recipe.dtype == torch.bfloat16):
            s = network.encode(network_input(1 - ink.expand(-1, 3, -1, -1), side), "sketch")
            p = network.encode(network_input(photos, side), "photo")
            logits = self._pair_logits(network, s, p) if recipe.weights.relation else None
        sizes = [len(rows.sketches), len(rows.further_sketches), len(rows.drawn)]
        sketches, further, drawn = torch.split(s.ret.float(), sizes)
        losses = self._ret_losses(rows, _Ret(sketches, further, drawn, p.ret.float()))
        if logits is not None:
            losses["relation"] = recipe.weights.relation * listwise_loss(logits)
            if isinstance(network.relation, BestMatchRelation):
                losses["calibration"] = 0.1 * calibration_loss(logits, network.relation.bias)
        return losses

    def _ret_losses(self, rows: Rows, ret: _Ret) -> dict[str, torch.Tensor]:
        weights, teacher, temperature = self.recipe.weights, self.teacher, self.recipe.temperature
        losses: dict[str, torch.Tensor] = {}
        if weights.bank:
            bank = bank_loss(ret.sketches, rows.sketch_labels, teacher, temperature)
            losses["bank"] = weights.bank * (bank + _LINES * instance_loss(ret.drawn, rows.drawn, teacher, temperature))
        if weights.contrast:
            losses["contrast"] = weights.contrast * contrast_loss(ret.sketches, ret.photos, temperature)
        if weights.labels and teacher.probabilities.shape[1]:
            losses["labels"] = weights.labels * self._label_loss(rows, ret)
        if weights.instances:
            photos = self.data.drawn_from[rows.sketches]
            known = photos >= 0
            found = instance_loss(ret.sketches[known], photos[known], teacher, temperature)
            losses["instances"] = weights.instances * found
        if weights.mates:
            labels = torch.cat([rows.sketch_labels, teacher.classes + rows.further.repeat_interleave(2)])
            losses["mates"] = weights.mates * mates_loss(torch.cat([ret.sketches, ret.further]), labels, temperature)
        if weights.teacher:
            shown = torch.cat([rows.photos, rows.drawn])
            losses["teacher"] = weights.teacher * teacher_loss(torch.cat([ret.photos, ret.drawn]), shown, teacher)
        return losses

    def _label_loss(self, rows: Rows, ret: _Ret) -> torch.Tensor:
        """Sketches of classes with photos are to be called as these are on average, line drawings and photos as the
        photo itself, sketches of other classes by their own name, where ImageNet has it."""
        named = self.further_targets[rows.further].repeat_interleave(2, dim=0)
        known = named.sum(dim=1) > 0
        targets = torch.cat(
            [
                self.class_probabilities[rows.sketch_labels],
                self.teacher.probabilities[torch.cat([rows.drawn, rows.photos])],
                named[known],
            ]
        )
        return label_loss(torch.cat([ret.sketches, ret.drawn, ret.photos, ret.further[known]]), targets, self.teacher)

    def _ink(self, rows: Rows, augment: Augmentation) -> torch.Tensor:
        """(b, 1, SIDE, SIDE): sketches, those of further classes, and line drawings, all varied as sketches are."""
        data, drawings = self.data, [torch.zeros(0, 1, SIDE, SIDE)]
        if len(rows.filtered):
            drawings.append(augment.sketches(augment.drawn(data.photos[rows.filtered].float() / 255)))
        if len(rows.lines):
            drawings.append(augment.sketches(1 - data.lines[rows.lines].float() / 255))
        sketches = data.sketches[torch.cat([rows.sketches, rows.further_sketches])]
        return torch.cat([augment.sketches(1 - sketches.float() / 255), *drawings])

    def _pair_logits(self, network: Network, sketches: Tokens, photos: Tokens) -> torch.Tensor:
        """(n, n) relation logits of the first sketch of each photo (rows) and every photo (columns)."""
        count = len(photos)
        rows, columns = torch.arange(count).repeat_interleave(count), torch.arange(count).repeat(count)
        first = sketches[torch.arange(count) * self.recipe.batch.sketches]
        sketch_side = network.project(first, "sketch")
        photo_side = network.project(photos, "photo")
        return network.relate(sketch_side.rows(rows), photo_side.rows(columns)).view(count, count)
