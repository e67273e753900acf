"""Two objectives: which pictures a training step takes, and the losses that it computes on them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from model.datasets import network_input
from model.network import BestMatchRelation, Network, Tokens
from model.papers.pictures import SIDE, Augmentation, TrainingSet, one_of_each, some
from model.papers.recipe import Batch, Quadruplets, ZseRecipe
from model.papers.zse.teacher import Teacher, named_targets

# Targets for the relation scores of matching pairs and of other pairs.
MATCH, NO_MATCH = 0.99, 0.01
MATCH, NO_MATCH = 0.99, 0.01
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

    def __init__(self, recipe: ZseRecipe, data: TrainingSet, teacher: Teacher) -> None:
        self.recipe, self.data, self.teacher = recipe, data, teacher
        self.sampler = Sampler(recipe.batch, data, teacher)
        self.class_probabilities = teacher.class_means(teacher.probabilities)
        self.further_targets = named_targets(data.further, teacher.probabilities.shape[1])

    def losses(
        self, network: Network, step: int, side: int, autocast: AbstractContextManager[object] | None = None
    ) -> dict[str, torch.Tensor]:
        """Computes the losses by name, for pictures of ``side`` pixels; seed and step decide all random choices.

        autocast: the network encodes and compares within this block.
        """
        recipe = self.recipe
        augment = Augmentation(recipe.seed * 1_000_003 + step)
        rows = self.sampler.sample(augment.generator)
        ink = self._ink(rows, augment)
        photos = augment.photos(self.data.photos[rows.photos].float() / 255)
        with autocast or nullcontext():
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
            known = torch.nonzero(photos >= 0).flatten()
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
        known = torch.nonzero(named.sum(dim=1) > 0).flatten()
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


class QuadrupletObjective:
    """The paper's objective (section 3.6): a sketch, another one of its class, a photo of it, and one of another class.

    Where the paper leaves something open, this does what the released code does.

    The first sketch goes with the photo of its class through the cross-attention, the second one with the other
    photo. The relation scores of those pairs have targets (eq. 11); the triplet loss (eq. 10) is on [Ret] as it
    leaves the cross-attention: first sketch, its photo, the other photo. So is the regulariser of mean cosines.
    """

    def __init__(self, recipe: ZseRecipe, data: TrainingSet, options: Quadruplets) -> None:
        self.recipe, self.data, self.options = recipe, data, options

    def losses(
        self, network: Network, step: int, side: int, autocast: AbstractContextManager[object] | None = None
    ) -> dict[str, torch.Tensor]:
        """Computes the losses by name (eq. 12), with arguments as for ``ListwiseObjective``."""
        sketch_rows, photo_rows = self._batch(torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + step))
        ink = self.data.sketches[sketch_rows].float() / 255
        photos = self.data.photos[photo_rows].float() / 255
        count = self.options.samples
        with autocast or nullcontext():
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
        sketches = one_of_each(self.data.sketch_rows, torch.cat([own, own]), generator)
        return sketches, one_of_each(self.data.photo_rows, torch.cat([own, other]), generator)


def mean_cosine(vectors: torch.Tensor) -> torch.Tensor:
    """The mean cosine of all pairs of different vectors (n, d), n at least 2."""
    directions = F.normalize(vectors, dim=1)
    count = len(directions)
    # The sum over all pairs has the cosine of each vector with itself, which is 1.
    return (directions.sum(dim=0).square().sum() - count) / (count * (count - 1))


@dataclass(frozen=True)
class Rows:
    """The pictures of one step, as rows of a TrainingSet; all int64.

    Attributes:
        labels: (n,) the class of each photo.
        photos: (n,). sketches: (n * k,), the k sketches of each photo's class together.
        further: (f,) numbers of classes without photos; further_sketches: (2 f,), two of each.
        filtered: (d,) photos of which line drawings are made.
        lines: (l,) line drawings; lines_of: (l,) their photos.
    """

    labels: torch.Tensor
    photos: torch.Tensor
    sketches: torch.Tensor
    further: torch.Tensor
    further_sketches: torch.Tensor
    filtered: torch.Tensor
    lines: torch.Tensor
    lines_of: torch.Tensor

    @property
    def drawn(self) -> torch.Tensor:
        """(d + l,): the photos of all line drawings."""
        return torch.cat([self.filtered, self.lines_of])

    @property
    def sketch_labels(self) -> torch.Tensor:
        """(n * k,): the class of each sketch."""
        return self.labels.repeat_interleave(len(self.sketches) // len(self.labels))


class Sampler:
    """Draws the pictures of a step: some classes, part of which look alike to the teacher, and what goes with them."""

    def __init__(self, batch: Batch, data: TrainingSet, teacher: Teacher) -> None:
        self.batch, self.data = batch, data
        self.classes = teacher.classes
        means = F.normalize(teacher.class_means(teacher.features), dim=1)
        self._neighbours = (means @ means.T).fill_diagonal_(-2).argsort(dim=1, descending=True)
        # Two sketches of a class are needed, so that one can be found by the other.
        several = [number for number, rows in enumerate(data.further_rows) if len(rows) > 1]
        self._further = torch.tensor(several, dtype=torch.int64)

    def sample(self, generator: torch.Generator) -> Rows:
        """The rows of one step; the generator decides all."""
        batch, data = self.batch, self.data
        labels, sketches, photos = self._classes_with_both(generator)
        further = self._further[torch.randperm(len(self._further), generator=generator)[: batch.further]]
        of_further = [data.further_rows[number] for number in further.tolist()]
        two_each = [rows[torch.randperm(len(rows), generator=generator)[:2]] for rows in of_further]
        filtered = torch.randint(len(data.photos), (batch.drawn,), generator=generator)
        lines = torch.randint(max(1, len(data.lines)), (batch.lines,), generator=generator)
        none = torch.empty(0, dtype=torch.int64)
        both = torch.cat([none, *two_each])
        return Rows(labels, photos, sketches, further, both, filtered, lines, lines_of=data.line_photos[lines])

    def _classes_with_both(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Labels (n,), rows of the sketches (n * sketches,) with those of a photo together, rows of the photos (n,)."""
        batch, data = self.batch, self.data
        classes = self._classes(generator)
        if batch.photos == 1:
            sketches = [some(data.sketch_rows[c], batch.sketches, generator) for c in classes.tolist()]
            photos = [some(data.photo_rows[c], 1, generator) for c in classes.tolist()]
            return classes, torch.cat(sketches), torch.cat(photos)
        chosen = []
        for c in classes.tolist():
            drawn_from = data.pairs[c]
            order = torch.randperm(len(drawn_from), generator=generator)[: batch.photos]
            chosen += [(c, *drawn_from[n]) for n in order.tolist()]
        labels = torch.tensor([c for c, _, _ in chosen])
        photo_rows = torch.tensor([photo for _, photo, _ in chosen])
        return labels, torch.cat([some(rows, batch.sketches, generator) for _, _, rows in chosen]), photo_rows

    def _classes(self, generator: torch.Generator) -> torch.Tensor:
        count = min(self.batch.classes, self.classes)
        order = torch.randperm(self.classes, generator=generator)
        near = self._neighbours[order[0], : round(self.batch.near * count)]
        chosen = torch.cat([order[:1], near])
        rest = order[~torch.isin(order, chosen)]
        return torch.cat([chosen, rest])[:count]


def bank_loss(ret: torch.Tensor, labels: torch.Tensor, teacher: Teacher, temperature: float) -> torch.Tensor:
    """Cross-entropy of finding an image's class among the teacher's photos.

    A class's logit is the log of the mean of exp(cosine / temperature) over its photos, so that large classes
    weigh no more than small ones. ret: (b, d); labels: (b,) int64 training classes.
    """
    cosines = F.normalize(ret, dim=1) @ teacher.features.T / temperature
    # Cosines are at most 1, so this shift keeps the exponentials finite.
    mass = torch.exp(cosines - 1 / temperature)
    labelled = teacher.labelled
    known = teacher.labels[labelled]
    sums = torch.zeros(len(ret), teacher.classes, dtype=mass.dtype).index_add(1, known, mass[:, labelled])
    means = sums / torch.bincount(known, minlength=teacher.classes)
    return F.cross_entropy(means.clamp(min=1e-30).log(), labels)


def contrast_loss(sketches: torch.Tensor, photos: torch.Tensor, temperature: float) -> torch.Tensor:
    """The list-wise loss of the cosines of [Ret], over a batch's own photos.

    sketches: (k * c, d), the k sketches of each class together; photos: (c, d), one of each class.
    """
    cosines = F.normalize(sketches, dim=1) @ F.normalize(photos, dim=1).T / temperature
    matrices = cosines.view(len(photos), -1, len(photos)).unbind(dim=1)
    return torch.stack([listwise_loss(logits) for logits in matrices]).mean()


def instance_loss(ret: torch.Tensor, photos: torch.Tensor, teacher: Teacher, temperature: float) -> torch.Tensor:
    """Cross-entropy of finding, among the teacher's photos, the one that an image was drawn from.

    ret: (b, d); photos: (b,) int64 rows of the teacher's photos. 0 where b is 0.
    """
    if not len(ret):
        return ret.sum()
    return F.cross_entropy(F.normalize(ret, dim=1) @ teacher.features.T / temperature, photos)


def mates_loss(ret: torch.Tensor, labels: torch.Tensor, temperature: float) -> torch.Tensor:
    """Cross-entropy of finding, among the other images of a batch, those of the same class.

    It pulls the sketches of a class together without any photo of it. ret: (b, d); labels: (b,) int64; a class with one
    image is only among the others.
    """
    features = F.normalize(ret, dim=1)
    itself = torch.eye(len(ret), dtype=torch.bool)
    logits = (features @ features.T / temperature).masked_fill(itself, -torch.inf)
    same = (labels[:, None] == labels[None]) & ~itself
    log_probabilities = logits.log_softmax(dim=1).masked_fill(~same, 0.0)
    having = torch.nonzero(same.any(dim=1)).flatten()
    return -(log_probabilities.sum(dim=1)[having] / same.sum(dim=1)[having]).mean()


def label_loss(ret: torch.Tensor, targets: torch.Tensor, teacher: Teacher) -> torch.Tensor:
    """Cross-entropy between the teacher's classifier, applied to ``ret`` (b, d), and class probabilities (b, k)."""
    log_probabilities = F.linear(ret, teacher.head_weight, teacher.head_bias).log_softmax(dim=1)
    return -(targets * log_probabilities).sum(dim=1).mean()


def teacher_loss(ret: torch.Tensor, photos: torch.Tensor, teacher: Teacher) -> torch.Tensor:
    """One minus the cosine between [Ret] (b, d) and the teacher's feature of the same photos (b,)."""
    return (1 - F.cosine_similarity(ret, teacher.features[photos], dim=1)).mean()


def listwise_loss(logits: torch.Tensor) -> torch.Tensor:
    """Cross-entropy over the rows and over the columns of a pair matrix (c, c) whose diagonal matches."""
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def calibration_loss(logits: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of the pair matrix (c, c); matching pairs together weigh as much as all others.

    It trains only the bias, which does not change the list-wise loss, so that relation scores become probabilities.
    """
    target = torch.eye(len(logits))
    weight = torch.where(target > 0, 0.5 / len(logits), 0.5 / max(1, target.numel() - len(logits)))
    level = logits.detach() - bias.detach() + bias
    return F.binary_cross_entropy_with_logits(level, target, weight=weight, reduction="sum")
