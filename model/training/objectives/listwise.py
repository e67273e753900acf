"""The default objective: list-wise losses over the pairs of a batch, and a pretrained ViT as teacher."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from model.datasets import network_input
from model.network import BestMatchRelation, Network, Tokens
from model.training.augmentation import SIDE, Augmentation
from model.training.objectives.losses import (
    bank_loss,
    calibration_loss,
    contrast_loss,
    instance_loss,
    label_loss,
    listwise_loss,
    mates_loss,
    teacher_loss,
)
from model.training.objectives.names import named_targets
from model.training.objectives.teacher import Teacher
from model.training.recipe import Recipe
from model.training.training_set import TrainingSet


class ListwiseObjective:
    """Every sketch of a batch is compared with every photo of the batch, and with the teacher's features of all photos.

    Line drawings have to find their photo among these features. Sketches of classes without photos have to find each
    other, and what ImageNet calls them. A batch holds some classes, part of which look alike. If it holds several
    photos of a class, each sketch has to find the photo that it was drawn from.
    """

    def __init__(self, recipe: Recipe, data: TrainingSet, teacher: Teacher) -> None:
        self.recipe, self.data, self.teacher = recipe, data, teacher
        self.class_probabilities = teacher.class_means(teacher.probabilities)
        means = F.normalize(teacher.class_means(teacher.features), dim=1)
        self.further_targets = named_targets(data.further, teacher.probabilities.shape[1])
        # Two sketches of a class are needed, so that one can be found by the other.
        several = [number for number, rows in enumerate(data.further_rows) if len(rows) > 1]
        self._further = torch.tensor(several, dtype=torch.int64)
        self._neighbours = (means @ means.T).fill_diagonal_(-2).argsort(dim=1, descending=True)

    def losses(self, network: Network, step: int, side: int) -> dict[str, torch.Tensor]:
        """The losses by name; a step lowers their sum. The recipe's seed and the step decide all random choices."""
        recipe, weights, teacher = self.recipe, self.recipe.weights, self.teacher
        augment = Augmentation(recipe.seed * 1_000_003 + step)
        labels, sketch_rows, photo_rows = self._batch(augment.generator)
        further = self._further_batch(augment.generator)
        two_each = [_pick_two(self.data.further_rows[n], augment.generator) for n in further.tolist()]
        all_rows = torch.cat([sketch_rows, *two_each])
        drawn_rows, lines = self._drawn(augment)
        ink = torch.cat([augment.sketches(1 - self.data.sketches[all_rows].float() / 255), lines])
        photos = augment.photos(self.data.photos[photo_rows].float() / 255)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=recipe.dtype == torch.bfloat16):
            s = network.encode(network_input(1 - ink.expand(-1, 3, -1, -1), side), "sketch")
            p = network.encode(network_input(photos, side), "photo")
            logits = self._pair_logits(network, s, p) if weights.relation else None
        sketch_ret, further_ret, drawn_ret = torch.split(
            s.ret.float(), [len(sketch_rows), 2 * len(further), len(drawn_rows)]
        )
        photo_ret = p.ret.float()
        sketch_labels = labels.repeat_interleave(recipe.batch.sketches)
        losses: dict[str, torch.Tensor] = {}
        if weights.bank:
            bank = bank_loss(sketch_ret, sketch_labels, teacher, recipe.temperature)
            if len(drawn_ret):
                bank = bank + 0.25 * instance_loss(drawn_ret, drawn_rows, teacher, recipe.temperature)
            losses["bank"] = weights.bank * bank
        if weights.contrast:
            losses["contrast"] = weights.contrast * contrast_loss(sketch_ret, photo_ret, recipe.temperature)
        if weights.labels and teacher.probabilities.shape[1]:
            ret = torch.cat([sketch_ret, drawn_ret, photo_ret])
            shown = torch.cat([drawn_rows, photo_rows])
            targets = torch.cat([self.class_probabilities[sketch_labels], teacher.probabilities[shown]])
            named = self.further_targets[further].repeat_interleave(2, dim=0)
            known = named.sum(dim=1) > 0
            ret, targets = torch.cat([ret, further_ret[known]]), torch.cat([targets, named[known]])
            losses["labels"] = weights.labels * label_loss(ret, targets, teacher)
        if weights.mates:
            mates = torch.cat([sketch_labels, teacher.classes + further.repeat_interleave(2)])
            all_ret = torch.cat([sketch_ret, further_ret])
            losses["mates"] = weights.mates * mates_loss(all_ret, mates, recipe.temperature)
        if weights.teacher:
            same = torch.cat([photo_rows, drawn_rows])
            losses["teacher"] = weights.teacher * teacher_loss(torch.cat([photo_ret, drawn_ret]), same, teacher)
        if logits is not None:
            losses["relation"] = weights.relation * listwise_loss(logits)
            if isinstance(network.relation, BestMatchRelation):
                losses["calibration"] = 0.1 * calibration_loss(logits, network.relation.bias)
        return losses

    def _pair_logits(self, network: Network, sketches: Tokens, photos: Tokens) -> torch.Tensor:
        """(n, n) relation logits of the first sketch of each photo (rows) and every photo (columns)."""
        count = len(photos)
        rows, columns = torch.arange(count).repeat_interleave(count), torch.arange(count).repeat(count)
        first = sketches[torch.arange(count) * self.recipe.batch.sketches]
        sketch_side, photo_side = network.project(first, "sketch"), network.project(photos, "photo")
        return network.relate(sketch_side.rows(rows), photo_side.rows(columns)).view(count, count)

    def _further_batch(self, generator: torch.Generator) -> torch.Tensor:
        """Numbers (f,) of classes without photos."""
        order = torch.randperm(len(self._further), generator=generator)
        return self._further[order[: self.recipe.batch.further]]

    def _drawn(self, augment: Augmentation) -> tuple[torch.Tensor, torch.Tensor]:
        """Photos as line drawings: their rows (d,), and the drawings in ink (d, 1, SIDE, SIDE), varied as sketches."""
        batch, data = self.recipe.batch, self.data
        filtered = torch.randint(len(data.photos), (batch.drawn,), generator=augment.generator)
        learned = torch.randint(max(1, len(data.lines)), (batch.lines,), generator=augment.generator)
        ink = [torch.zeros(0, 1, SIDE, SIDE)]
        if batch.drawn:
            ink.append(augment.sketches(augment.drawn(data.photos[filtered].float() / 255)))
        if batch.lines:
            ink.append(augment.sketches(1 - data.lines[learned].float() / 255))
        return torch.cat([filtered, data.line_photos[learned]]), torch.cat(ink)

    def _batch(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Labels (n,), rows of the sketches (n * sketches,) with those of a photo together, rows of the photos (n,)."""
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


def _pick_two(rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return rows[torch.randperm(len(rows), generator=generator)[:2]]
