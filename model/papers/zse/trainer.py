"""Trainings of ZSE-SBIR, from a recipe to a checkpoint file, by either of two objectives."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from model.datasets import IMAGENET_PART, Task, cache_folder, read_task
from model.network import BestMatchRelation, Network, from_backbone, read_backbone
from model.papers.pictures import (
    Augmentation,
    TrainingSet,
    check_classes,
    drawn_rows,
    kept_tensors,
    one_of_each,
    sized,
    training_set,
    varied,
)
from model.papers.recipe import Quadruplets, TwoSidedRecipe, ZseRecipe
from model.papers.runs import Run, Trainer, train_and_calibrate, validated_corpora
from model.papers.zse.teacher import Teacher, ask_teacher
from model.training import digest, warmed_cosine

# Targets for the relation scores of matching pairs and of other pairs.
MATCH, NO_MATCH = 0.99, 0.01
# The loss that keeps the vectors of photos where the teacher has them counts twice.
_TEACHER_WEIGHT = 2.0


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
        recipe, teacher = self.recipe, self.teacher
        augment = Augmentation(recipe.seed * 1_000_003 + step)
        count = min(recipe.classes, len(self.data.photo_rows))
        labels, sketch_rows, photo_rows = drawn_rows(self.data, count, augment.generator)
        sketches, photos = varied(self.data, sketch_rows, photo_rows, augment)
        with autocast or nullcontext():
            s = network.encode(sized(sketches, network.config), "sketch")
            p = network.encode(sized(photos, network.config), "photo")
            rows, columns = torch.arange(count).repeat_interleave(count), torch.arange(count).repeat(count)
            sketch_side, photo_side = network.project(s, "sketch"), network.project(p, "photo")
            logits = network.relate(sketch_side.rows(rows), photo_side.rows(columns)).view(count, count)
        drawn, shown = s.ret.float(), p.ret.float()
        cosines = F.normalize(drawn, dim=1) @ F.normalize(shown, dim=1).T
        alike = F.cosine_similarity(shown, teacher.features[photo_rows], dim=1)
        losses = {
            "bank": bank_loss(drawn, labels, teacher, recipe.temperature),
            "contrast": listwise_loss(cosines / recipe.temperature),
            "teacher": _TEACHER_WEIGHT * (1 - alike).mean(),
            "relation": listwise_loss(logits),
        }
        if teacher.probabilities.shape[1]:
            # Sketches are to be called as photos of their class are on average, and photos as the photo itself.
            targets = torch.cat([self.class_probabilities[labels], teacher.probabilities[photo_rows]])
            losses["labels"] = label_loss(torch.cat([drawn, shown]), targets, teacher)
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


class ZseTrainer(Trainer[Network]):
    """A training of a network of ZSE-SBIR.

    Args:
        recipe: how to train.
        data: the training pictures.
        backbone: pretrained weights to start from, under timm's key names; the teacher uses them, too.
        folder: of the training's state, as for ``Loop``.

    Raises:
        ModelError: the pictures are of one class only, or the backbone is another ViT's.
    """

    recipe: ZseRecipe

    def __init__(self, recipe: ZseRecipe, data: TrainingSet, backbone: dict[str, torch.Tensor], folder: Path) -> None:
        check_classes(data)
        self.recipe, self.data = recipe, data
        network = from_backbone(recipe.config, backbone, recipe.seed)
        super().__init__(recipe, network, folder, digest(repr(recipe) + data.key, backbone))
        self.objective: ListwiseObjective | QuadrupletObjective
        if recipe.quadruplets is None:
            self.objective = ListwiseObjective(recipe, data, self._teacher(backbone))
        else:
            self.objective = QuadrupletObjective(recipe, data, recipe.quadruplets)
        self.resume()

    @property
    def trained(self) -> Network:
        """The network as it would be saved now: the average over steps."""
        return self.average

    def prepare(self) -> None:
        """Sets the learning rates of the step that comes next: they rise linearly, then fall by a cosine."""
        chosen = self.recipe.optimiser
        share = warmed_cosine(self.step, self.recipe.steps, chosen.warmup, 1.0, chosen.last)
        for group in self.optimiser.param_groups:
            group["lr"] = share * group["rate"]

    def losses(self) -> dict[str, torch.Tensor]:
        """Computes the losses of the objective."""
        return self.objective.losses(self.network, self.step, self.autocast())

    def make_optimiser(self) -> torch.optim.AdamW:
        """AdamW; the pretrained part of the encoder has a rate of its own."""
        chosen = self.recipe.optimiser
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in self.network.named_parameters():
            # The learnable tokenizer is not pretrained: it learns at the rate of the heads.
            pretrained = name.startswith("encoder.") and ".learnable." not in name
            groups.setdefault((pretrained, parameter.ndim > 1), []).append(parameter)
        return torch.optim.AdamW(
            [
                {
                    "params": parameters,
                    "rate": chosen.encoder_rate if pretrained else chosen.head_rate,
                    "weight_decay": chosen.decay if matrix else 0.0,
                }
                for (pretrained, matrix), parameters in groups.items()
            ]
        )

    def _teacher(self, backbone: dict[str, torch.Tensor]) -> Teacher:
        path = self.folder / f"teacher-{digest(self.data.key, backbone)[:16]}.safetensors"
        config, data = self.network.config, self.data
        return Teacher(
            **kept_tensors(path, lambda: vars(ask_teacher(backbone, config, data.photos, data.photo_labels)))
        )


def train_zse(recipe: ZseRecipe, run: Run, report: Callable[[str], object]) -> bool:
    """Trains a network of ZSE-SBIR, calibrates it on the validation classes, and writes the checkpoint.

    ``report`` and the answer are those of ``run_steps``.
    """
    training, validation = validated_corpora(recipe, run, report)
    backbone = read_backbone(run.backbone)
    trainer = ZseTrainer(recipe, training_set(training, cache_folder() / "pixels"), backbone, run.folder)
    return train_and_calibrate(trainer, run, validation, {}, report)


def large_validation(recipe: TwoSidedRecipe) -> Task | None:
    """Trained and validation classes in one gallery, as far as the recipe wants to see it; see ``read_task``."""
    if not recipe.evaluate_everything:
        return None
    trained = "+".join(part for part in recipe.split if part not in ("more", IMAGENET_PART))
    return read_task("everything", "val", trained).subsampled(recipe.evaluate_everything, 1)
