"""A training of a network of ZSE-SBIR: its start, its optimiser, its input sizes and its objective."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from model.errors import ModelError
from model.network import POSITION, Encoder, Network, from_backbone, resized
from model.papers.recipe import Recipe
from model.papers.training_set import TrainingSet
from model.papers.zse.listwise import ListwiseObjective
from model.papers.zse.quadruplets import QuadrupletObjective
from model.papers.zse.teacher import Teacher, ask_teacher
from model.training import Loop, digest


class Objective(Protocol):
    """The losses of each training step."""

    def losses(self, network: Network, step: int, side: int) -> dict[str, torch.Tensor]:
        """The losses by name, for pictures of ``side`` pixels; the same step gives the same losses."""
        ...


class Trainer(Loop[Network]):
    """A training of a network of ZSE-SBIR.

    Args:
        recipe: how to train.
        data: the training pictures.
        backbone: pretrained weights to start from, under timm's key names; the teacher uses them, too.
        folder: of the training's state, as for ``Loop``.
        start: a trained network to start from instead of the backbone; None for the backbone.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: TrainingSet,
        backbone: dict[str, torch.Tensor],
        folder: Path,
        start: Network | None = None,
    ) -> None:
        self.recipe, self.data = recipe, data
        self.native = backbone["pos_embed"].float()
        config = recipe.config(recipe.phases[0].image_size)
        network = from_backbone(config, backbone, recipe.seed)
        if start is not None:
            _load_start(network, start, self.native)
        super().__init__(recipe, folder, network, _origin(recipe, data, backbone, start))
        # What the pretrained ViT says of the photos; None where the recipe does not ask it.
        self.teacher: Teacher | None = None
        self.objective: Objective
        if recipe.quadruplets is None:
            self.teacher = self._teacher(backbone)
            self.objective = ListwiseObjective(recipe, data, self.teacher)
        else:
            self.objective = QuadrupletObjective(recipe, data, recipe.quadruplets)
        self.resume()

    def prepare(self) -> None:
        """Sets the input size and the learning rates of the step that comes next."""
        phase = self.recipe.phase_at(self.step)
        self._resize(phase.image_size)
        self._set_rates(phase.encoder)

    def losses(self) -> dict[str, torch.Tensor]:
        """The losses of the objective."""
        return self.objective.losses(self.network, self.step, self.recipe.phase_at(self.step).image_size)

    def restore_shape(self) -> None:
        """Sets the input size of the last step before the state was saved."""
        self._resize(self.recipe.phase_at(max(0, self.step - 1)).image_size)

    def make_optimiser(self) -> torch.optim.AdamW:
        """AdamW; the encoder and its late blocks have groups of their own."""
        groups: dict[tuple[float, bool, bool], list[nn.Parameter]] = {}
        chosen = self.recipe.optimiser
        late = tuple(f"encoder.blocks.{self.network.config.depth - 1 - n}." for n in range(chosen.late_blocks))
        pretrained = isinstance(self.network.encoder, Encoder)
        for name, parameter in self.network.named_parameters():
            # The learnable tokenizer is not pretrained, and neither is an encoder that is no ViT: they learn at the
            # rate of the heads.
            encoder = pretrained and name.startswith("encoder.") and ".learnable." not in name
            part = chosen.late_rate if encoder and name.startswith(late) else 1.0
            groups.setdefault((part, encoder, parameter.ndim > 1), []).append(parameter)
        return torch.optim.AdamW(
            [
                {
                    "params": parameters,
                    "encoder": encoder,
                    "part": part,
                    "weight_decay": chosen.decay if matrix else 0.0,
                }
                for (part, encoder, matrix), parameters in groups.items()
            ],
            lr=chosen.head_rate,
        )

    def _set_rates(self, encoder: bool) -> None:
        chosen = self.recipe.optimiser
        part = max(0.0, self.step / self.recipe.steps - chosen.stable) / max(1 - chosen.stable, 1e-9)
        factor = min(1.0, (self.step + 1) / chosen.warmup) * (0.01 + 0.99 * (1 + math.cos(math.pi * part)) / 2)
        for group in self.optimiser.param_groups:
            rate = chosen.encoder_rate if group["encoder"] else chosen.head_rate
            group["lr"] = factor * rate * group["part"]
        self.network.encoder.requires_grad_(encoder)

    def _resize(self, side: int) -> None:
        if self.network.config.image_size == side:
            return
        config = self.recipe.config(side)
        old, self.network = self.network, resized(self.network, config, self.native).train()
        self.average = resized(self.average, config, self.native).requires_grad_(False)
        before, self.optimiser = self.optimiser.state, self.make_optimiser()
        for (name, parameter), previous in zip(self.network.named_parameters(), old.parameters(), strict=True):
            if name != POSITION and previous in before:
                self.optimiser.state[parameter] = before[previous]

    def _teacher(self, backbone: dict[str, torch.Tensor]) -> Teacher:
        path = self.folder / "teacher.safetensors"
        # The teacher does not depend on the recipe, so a copied file saves other trainings the time.
        origin = digest(self.data.key, backbone)
        teacher = Teacher.load(path, origin)
        if teacher is None:
            teacher = ask_teacher(backbone, self.network.config, self.data.photos, self.data.photo_labels)
            teacher.save(path, origin)
        return teacher


def _load_start(network: Network, start: Network, native: torch.Tensor) -> None:
    """Gives a new network the weights of another; ``native`` as for ``resized``."""
    # The prior and the vocabulary are made anew after the training.
    start = start.without_prior().without_vocabulary()
    side, config = network.config.image_size, start.config
    if side != config.image_size:
        start = resized(start, dataclasses.replace(config, image_size=side), native)
    try:
        network.load_state_dict(start.state_dict())
    except RuntimeError as error:
        # All that differs is one line each, behind a title: for another size of ViT these are hundreds.
        first = str(error).splitlines()[1].strip()
        raise ModelError(
            f"the network to start from ({config.name}) is not the recipe's ({network.config.name}), "
            f"so name its preset in the recipe; the first difference: {first}"
        ) from error


def _origin(recipe: Recipe, data: TrainingSet, backbone: dict[str, torch.Tensor], start: Network | None) -> str:
    """Hex digest of everything that determines the state of a training."""
    # A prior and a vocabulary are made anew after the training, so a start may get its own while the training goes on.
    state = {} if start is None else start.without_prior().without_vocabulary().state_dict()
    begin = {f"start.{name}": tensor for name, tensor in state.items()}
    return digest(repr(recipe) + data.key, backbone | begin)
