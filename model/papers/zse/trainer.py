"""Trainings of ZSE-SBIR and of the default network, from a recipe to a checkpoint file."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from model.checkpoint import load_zse_network, save_checkpoint
from model.datasets import (
    IMAGENET_PART,
    GroupedTask,
    cache_folder,
    data_folder,
    read_large_task,
    read_synonyms,
    subsampled,
)
from model.errors import ModelError
from model.evaluation import counts
from model.network import POSITION, UNCALIBRATED, Encoder, Network, from_backbone, read_backbone, resized
from model.papers.pictures import TrainingSet, kept_tensors, training_corpora, training_set
from model.papers.recipe import TwoSidedRecipe, ZseRecipe
from model.papers.runs import Run, Trainer, Watch, run_steps
from model.papers.zse.objectives import ListwiseObjective, QuadrupletObjective
from model.papers.zse.prior import with_chosen_prior, with_prior
from model.papers.zse.teacher import Teacher, ask_teacher
from model.papers.zse.words import with_words
from model.training import calibrated, digest


class ZseTrainer(Trainer[Network]):
    """A training of a network of ZSE-SBIR.

    Args:
        recipe: how to train.
        data: the training pictures.
        backbone: pretrained weights to start from, under timm's key names; the teacher uses them, too.
        folder: of the training's state, as for ``Loop``.
        start: a trained network to start from instead of the backbone; None for the backbone.
    """

    recipe: ZseRecipe

    def __init__(
        self,
        recipe: ZseRecipe,
        data: TrainingSet,
        backbone: dict[str, torch.Tensor],
        folder: Path,
        start: Network | None = None,
    ) -> None:
        self.recipe, self.data = recipe, data
        self.native = backbone["pos_embed"].float()
        network = from_backbone(recipe.config(recipe.phases[0].image_size), backbone, recipe.seed)
        state: dict[str, torch.Tensor] = {}
        if start is not None:
            # The prior and the vocabulary are made anew after the training, and a start may get them meanwhile.
            plain = start.without_prior().without_vocabulary()
            state = {f"start.{name}": tensor for name, tensor in plain.state_dict().items()}
            _load_start(network, plain, self.native)
        super().__init__(recipe, network, folder, digest(repr(recipe) + data.key, backbone | state))
        # The pretrained ViT says this of the photos; None where the recipe does not ask it.
        self.teacher: Teacher | None = None
        self.objective: ListwiseObjective | QuadrupletObjective
        if recipe.quadruplets is None:
            self.teacher = self._teacher(backbone)
            self.objective = ListwiseObjective(recipe, data, self.teacher)
        else:
            self.objective = QuadrupletObjective(recipe, data, recipe.quadruplets)
        self.resume()

    @property
    def trained(self) -> Network:
        """The network as it would be saved now: the average over steps."""
        return self.average

    def prepare(self) -> None:
        """Sets the input size and the learning rates of the step that comes next."""
        phase = self.recipe.phase_at(self.step)
        self._resize(phase.image_size)
        self._set_rates(phase.encoder)

    def losses(self) -> dict[str, torch.Tensor]:
        """Computes the losses of the objective."""
        side = self.recipe.phase_at(self.step).image_size
        return self.objective.losses(self.network, self.step, side, self.autocast())

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
        # The teacher does not depend on the recipe, so a copied file saves other trainings the time.
        path = self.folder / f"teacher-{digest(self.data.key, backbone)[:16]}.safetensors"
        config, data = self.network.config, self.data
        return Teacher(
            **kept_tensors(path, lambda: vars(ask_teacher(backbone, config, data.photos, data.photo_labels)))
        )


def _load_start(network: Network, start: Network, native: torch.Tensor) -> None:
    """Gives a new network the weights of another; ``native`` as for ``resized``."""
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


def train_zse(recipe: ZseRecipe, run: Run, report: Callable[[str], object], watch: Watch) -> bool:
    """Trains a network of ZSE-SBIR, calibrates it on the validation classes, and writes the checkpoint.

    A recipe that is evaluated in a gallery of everything gives the network a prior, too. A recipe that trains on the
    validation classes keeps the calibration of ``run.start``, and the weights of its prior. The network gets a
    vocabulary of what its photos show. A training on ``run.data`` keeps the whole prior and the vocabulary of its
    start. ``report``, ``watch`` and what is returned are those of ``train``.
    """
    backbone = read_backbone(run.backbone)
    start = load_zse_network(run.start) if run.start else None
    pictures = training_corpora(run.data, recipe)
    training, validation = pictures.training, pictures.validation
    if validation is None and start is None:
        raise ModelError(
            "a recipe that trains on the validation classes needs --start, whose calibration it keeps; "
            "sketch-search model info names the file of the default network"
        )
    chosen = f"calibrated on {counts(validation)}" if validation else f"calibration of {run.start}"
    further = pictures.further
    if beside := [
        f"{len(found):,} {what}"
        for what, found in (
            ("sketches without photos", further.sketches),
            ("photos without sketches", further.photos),
            ("line drawings", further.lines),
        )
        if found
    ]:
        report("beside the classes with both: " + ", ".join(beside))
    report(f"training on {counts(training)}, {recipe.pictures:,} of them in all steps; {chosen}")
    data = training_set(training, cache_folder() / "pixels", further)
    trainer = ZseTrainer(recipe, data, backbone, run.folder, start)
    large = large_validation(recipe) if run.data is None and validation else None
    if not run_steps(trainer, run, validation, report, watch, large=large):
        return False
    if run.target is None:
        return True
    trained = trainer.trained
    if run.data is not None and start is not None:
        # The pictures that its prior was made of are not among these.
        trained = trained.prior_replaced(start.prior)
    notes = {"origin": run.origin}
    if validation:
        chosen_on = subsampled(validation, recipe.choose_share, recipe.choose_share)
        harmonic: dict[str, float] = {}
        if large is not None:
            trained, harmonic = with_chosen_prior(trained, training, further, large, recipe.methods, recipe.dtype)
        network, figures = calibrated(trained, chosen_on, recipe.dtype, recipe.methods)
        figures |= harmonic
        notes["validation"] = json.dumps(figures)
        said = f"; mAP@all on validation classes, and harmonic means in a gallery of everything: {figures}"
    else:
        if run.data is None and start is not None and start.prior is not None:
            weights = float(start.prior.ret_weight), float(start.prior.relation_weight)
            trained = with_prior(trained, training, further, *weights)
        network, said = trained.with_calibration(start.calibration if start else UNCALIBRATED), ""
    if run.data is None:
        beliefs = trainer.teacher.probabilities if trainer.teacher else torch.zeros(len(data.photos), 0)
        network = with_words(network, pictures, lambda rows: beliefs[rows], read_synonyms(data_folder()))
    elif start is not None:
        network = network.vocabulary_replaced(start.vocabulary, start.config.words)
    save_checkpoint(network.half(), run.target, notes)
    report(f"wrote {run.target}{said}")
    return True


def large_validation(recipe: ZseRecipe | TwoSidedRecipe) -> GroupedTask | None:
    """Trained and validation classes in one gallery, as far as the recipe wants to see it; see ``read_large_task``."""
    if not recipe.evaluate_everything:
        return None
    trained = "+".join(part for part in recipe.split if part not in ("more", IMAGENET_PART))
    return read_large_task("everything", "val", trained).subsampled(recipe.evaluate_everything, 1)
