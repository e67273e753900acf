"""Trainings of ZSE-SBIR, from a recipe to a checkpoint file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from model.datasets import IMAGENET_PART, GroupedTask, cache_folder, read_large_task
from model.network import Network, from_backbone, read_backbone
from model.papers.pictures import TrainingSet, check_classes, kept_tensors, training_set
from model.papers.recipe import TwoSidedRecipe, ZseRecipe
from model.papers.runs import Run, Trainer, train_and_calibrate, validated_corpora
from model.papers.zse.objectives import ListwiseObjective, QuadrupletObjective
from model.papers.zse.teacher import Teacher, ask_teacher
from model.training import digest, warmed_cosine


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

    ``report`` and the answer are those of ``train``.
    """
    training, validation = validated_corpora(recipe, run, report)
    backbone = read_backbone(run.backbone)
    trainer = ZseTrainer(recipe, training_set(training, cache_folder() / "pixels"), backbone, run.folder)
    return train_and_calibrate(trainer, run, validation, {}, report)


def large_validation(recipe: TwoSidedRecipe) -> GroupedTask | None:
    """Trained and validation classes in one gallery, as far as the recipe wants to see it; see ``read_large_task``."""
    if not recipe.evaluate_everything:
        return None
    trained = "+".join(part for part in recipe.split if part not in ("more", IMAGENET_PART))
    return read_large_task("everything", "val", trained).subsampled(recipe.evaluate_everything, 1)
