"""Two objectives: which pictures a training step takes, and the losses that it computes on them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F

from model.network import BestMatchRelation, Network
from model.papers.pictures import Augmentation, TrainingSet, drawn_rows, one_of_each, sized, varied
from model.papers.recipe import Quadruplets, ZseRecipe
from model.papers.zse.teacher import Teacher

# Targets for the relation scores of matching pairs and of other pairs.
MATCH, NO_MATCH = 0.99, 0.01


class ListwiseObjective:
    """A batch holds a sketch and a photo of some classes.

    Every sketch is compared with every photo of the batch, and with the teacher's features of all photos.
    """

    def __init__(self, recipe: ZseRecipe, data: TrainingSet, teacher: Teacher) -> None:
        self.recipe, self.data, self.teacher = recipe, data, teacher
        self.class_probabilities = teacher.class_means(teacher.probabilities)

    def losses(
        self, network: Network, step: int, autocast: AbstractContextManager[object] | None = None
    ) -> dict[str, torch.Tensor]:
        """Computes the losses by name; seed and step decide all random choices.

        autocast: the network encodes and compares within this block.
        """
        recipe, weights, teacher = self.recipe, self.recipe.weights, self.teacher
        augment = Augmentation(recipe.seed * 1_000_003 + step)
        count = min(recipe.classes, len(self.data.photo_rows))
        labels, sketch_rows, photo_rows = drawn_rows(self.data, count, augment.generator)
        sketches, photos = varied(self.data, sketch_rows, photo_rows, augment)
        with autocast or nullcontext():
            s = network.encode(sized(sketches, network.config), "sketch")
            p = network.encode(sized(photos, network.config), "photo")
            logits = None
            if weights.relation:
                rows, columns = torch.arange(count).repeat_interleave(count), torch.arange(count).repeat(count)
                sketch_side, photo_side = network.project(s, "sketch"), network.project(p, "photo")
                logits = network.relate(sketch_side.rows(rows), photo_side.rows(columns)).view(count, count)
        drawn, shown = s.ret.float(), p.ret.float()
        losses: dict[str, torch.Tensor] = {}
        if weights.bank:
            losses["bank"] = weights.bank * bank_loss(drawn, labels, teacher, recipe.temperature)
        if weights.contrast:
            cosines = F.normalize(drawn, dim=1) @ F.normalize(shown, dim=1).T
            losses["contrast"] = weights.contrast * listwise_loss(cosines / recipe.temperature)
        if weights.labels and teacher.probabilities.shape[1]:
            # Sketches are to be called as photos of their class are on average, and photos as the photo itself.
            targets = torch.cat([self.class_probabilities[labels], teacher.probabilities[photo_rows]])
            losses["labels"] = weights.labels * label_loss(torch.cat([drawn, shown]), targets, teacher)
        if weights.teacher:
            alike = F.cosine_similarity(shown, teacher.features[photo_rows], dim=1)
            losses["teacher"] = weights.teacher * (1 - alike).mean()
        if logits is not None:
            losses["relation"] = weights.relation * listwise_loss(logits)
            if isinstance(network.relation, BestMatchRelation):
                losses["calibration"] = 0.1 * calibration_loss(logits, network.relation.bias)
        return losses


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
        self, network: Network, step: int, autocast: AbstractContextManager[object] | None = None
    ) -> dict[str, torch.Tensor]:
        """Computes the losses by name (eq. 12), with arguments as for ``ListwiseObjective``."""
        sketch_rows, photo_rows = self._batch(torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + step))
        count, config = self.options.samples, network.config
        with autocast or nullcontext():
            drawn = network.encode(sized(self.data.sketches[sketch_rows].float() / 255, config), "sketch")
            shown = network.encode(sized(self.data.photos[photo_rows].float() / 255, config), "photo")
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
        """Draws rows of the sketches, first ones before second ones, and of the photos, matching ones before others."""
        classes = len(self.data.photo_rows)
        own = torch.randint(classes, (self.options.samples,), generator=generator)
        other = (own + torch.randint(1, classes, (self.options.samples,), generator=generator)) % classes
        sketches = one_of_each(self.data.sketch_rows, torch.cat([own, own]), generator)
        return sketches, one_of_each(self.data.photo_rows, torch.cat([own, other]), generator)


def mean_cosine(vectors: torch.Tensor) -> torch.Tensor:
    """Averages the cosines of all pairs of different vectors (n, d), n at least 2."""
    directions = F.normalize(vectors, dim=1)
    count = len(directions)
    # The sum over all pairs has the cosine of each vector with itself, which is 1.
    return (directions.sum(dim=0).square().sum() - count) / (count * (count - 1))


def bank_loss(ret: torch.Tensor, labels: torch.Tensor, teacher: Teacher, temperature: float) -> torch.Tensor:
    """Cross-entropy of finding an image's class among the teacher's photos.

    A class's logit is the log of the mean of exp(cosine / temperature) over its photos, so that large classes
    weigh no more than small ones. ret: (b, d); labels: (b,) int64 training classes.
    """
    cosines = F.normalize(ret, dim=1) @ teacher.features.T / temperature
    # Cosines are at most 1, so this shift keeps the exponentials finite.
    mass = torch.exp(cosines - 1 / temperature)
    means = teacher.class_means(mass.T).T
    return F.cross_entropy(means.clamp(min=1e-30).log(), labels)


def label_loss(ret: torch.Tensor, targets: torch.Tensor, teacher: Teacher) -> torch.Tensor:
    """Cross-entropy between the teacher's classifier, applied to ``ret`` (b, d), and class probabilities (b, k)."""
    log_probabilities = F.linear(ret, teacher.head_weight, teacher.head_bias).log_softmax(dim=1)
    return -(targets * log_probabilities).sum(dim=1).mean()


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
