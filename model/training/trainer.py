"""The training loop: reproducible steps, and a saved state from which an interrupted training continues."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from model.errors import ModelError
from model.evaluation import draw_curve
from model.network import POSITION, Encoder, Network, from_backbone, resized
from model.training.objectives import ListwiseObjective, QuadrupletObjective, Teacher, ask_teacher
from model.training.recipe import Recipe
from model.training.training_set import TrainingSet


class Objective(Protocol):
    """The losses of each training step."""

    def losses(self, network: Network, step: int, side: int) -> dict[str, torch.Tensor]:
        """The losses by name, for pictures of ``side`` pixels; the same step gives the same losses."""
        ...


class Trainer:
    """One training: the network, the running average of its weights, the optimiser, and the folder of its state.

    Args:
        recipe: how to train.
        data: the training pictures.
        backbone: pretrained weights to start from, under timm's key names; the teacher uses them, too.
        folder: where state.safetensors, log.jsonl and curve.png are kept; a training found there is continued.
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
        self.recipe, self.data, self.folder = recipe, data, folder
        folder.mkdir(parents=True, exist_ok=True)
        config = recipe.config(recipe.phases[0].image_size)
        self.native = backbone["pos_embed"].float()
        self.network = from_backbone(config, backbone, recipe.seed)
        if start is not None:
            self._load_start(start)
        self.network.train()
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.optimiser = self._optimiser()
        self.step = 0
        self.origin = _origin(recipe, data, backbone, start)
        # What the pretrained ViT says of the photos; None where the recipe does not ask it.
        self.teacher: Teacher | None = None
        self.objective: Objective
        if recipe.quadruplets is None:
            self.teacher = self._teacher(backbone)
            self.objective = ListwiseObjective(recipe, data, self.teacher)
        else:
            self.objective = QuadrupletObjective(recipe, data, recipe.quadruplets)
        if self.state_path.exists():
            self._restore()

    @property
    def state_path(self) -> Path:
        """The file with everything that is needed to continue."""
        return self.folder / "state.safetensors"

    @property
    def log_path(self) -> Path:
        """A file with one JSON object for each step: losses, seconds and, at times, validation figures."""
        return self.folder / "log.jsonl"

    def run(self, validate: Callable[[Trainer], dict[str, float]] | None = None, until: int | None = None) -> None:
        """Trains to the end of the recipe, or to step ``until``.

        ``validate`` is called every ``evaluate_every`` steps; its figures are added to the log.
        """
        last = min(until or self.recipe.steps, self.recipe.steps)
        bar = tqdm(total=self.recipe.steps, initial=self.step, desc="training", unit="step", disable=None)
        while self.step < last:
            began = time.monotonic()
            losses = self.train_step()
            entry: dict[str, float | int] = {"step": self.step, "of": self.recipe.steps, **losses}
            entry["seconds"] = round(time.monotonic() - began, 3)
            bar.update()
            bar.set_postfix(losses, refresh=False)
            if validate is not None and (self.step % self.recipe.evaluate_every == 0 or self.step == self.recipe.steps):
                entry |= validate(self)
            with self.log_path.open("a") as log:
                log.write(json.dumps(entry) + "\n")
            if self.step % self.recipe.save_every == 0 or self.step == last:
                self.save()
                draw_curve(self.log_path, self.folder / "curve.png")
        bar.close()

    def train_step(self) -> dict[str, float]:
        """Makes one optimiser step and returns the losses by name. Raises ModelError where they are not finite."""
        phase = self.recipe.phase_at(self.step)
        self._resize(phase.image_size)
        self._set_rates(phase.encoder)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe.seed * 1_000_003 + self.step)
            # On a CPU the backward pass of the fused attention kernel is slower than that of plain products.
            with sdpa_kernel(SDPBackend.MATH):
                losses = self.objective.losses(self.network, self.step, phase.image_size)
                total = torch.stack(list(losses.values())).sum()
                self.optimiser.zero_grad(set_to_none=True)
                torch.autograd.backward(total)
        if not torch.isfinite(total):
            raise ModelError(f"training diverged at step {self.step}; lower the learning rates in the recipe")
        nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.optimiser.clip)
        self.optimiser.step()
        self.step += 1
        kept = min(self.recipe.optimiser.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(value, 1 - kept)
        return {name: round(float(loss.detach()), 4) for name, loss in losses.items()}

    def save(self) -> None:
        """Writes the state of the training, atomically."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            for key, value in self.optimiser.state.get(parameter, {}).items():
                tensors[f"optimiser.{key}.{name}"] = torch.as_tensor(value)
        partial = self.state_path.with_suffix(".partial")
        metadata = {"step": str(self.step), "origin": self.origin}
        save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, partial, metadata=metadata)
        os.replace(partial, self.state_path)

    def _restore(self) -> None:
        with safe_open(self.state_path, framework="pt") as file:
            metadata = file.metadata()
            if metadata.get("origin") != self.origin:
                raise ModelError(
                    f"{self.state_path} belongs to another recipe, backbone or data; "
                    "name another folder with --run, or remove this one to start again"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        self.step = int(metadata["step"])
        self._cut_log()
        self._resize(self.recipe.phase_at(max(0, self.step - 1)).image_size)
        for part, network in (("network.", self.network), ("average.", self.average)):
            network.load_state_dict({k.removeprefix(part): v for k, v in tensors.items() if k.startswith(part)})
        for name, parameter in self.network.named_parameters():
            state = {key: tensors.get(f"optimiser.{key}.{name}") for key in ("step", "exp_avg", "exp_avg_sq")}
            if state["step"] is not None:
                self.optimiser.state[parameter] = state

    def _cut_log(self) -> None:
        """Drops log lines of steps after the saved state, which will be repeated, and a line that is incomplete."""
        lines = []
        for line in self.log_path.read_text().splitlines() if self.log_path.exists() else ():
            with suppress(json.JSONDecodeError):
                if json.loads(line)["step"] <= self.step:
                    lines.append(line + "\n")
        self.log_path.write_text("".join(lines))

    def _load_start(self, start: Network) -> None:
        # The prior and the vocabulary are made anew after the training.
        start = start.without_prior().without_vocabulary()
        side, config = self.network.config.image_size, start.config
        if side != config.image_size:
            start = resized(start, dataclasses.replace(config, image_size=side), self.native)
        try:
            self.network.load_state_dict(start.state_dict())
        except RuntimeError as error:
            # All that differs is one line each, behind a title: for another size of ViT these are hundreds.
            first = str(error).splitlines()[1].strip()
            raise ModelError(
                f"the network to start from ({config.name}) is not the recipe's ({self.network.config.name}), "
                f"so name its preset in the recipe; the first difference: {first}"
            ) from error

    def _optimiser(self) -> torch.optim.AdamW:
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
        before, self.optimiser = self.optimiser.state, self._optimiser()
        for (name, parameter), previous in zip(self.network.named_parameters(), old.parameters(), strict=True):
            if name != POSITION and previous in before:
                self.optimiser.state[parameter] = before[previous]

    def _teacher(self, backbone: dict[str, torch.Tensor]) -> Teacher:
        path = self.folder / "teacher.safetensors"
        # The teacher does not depend on the recipe, so a copied file saves other trainings the time.
        origin = _digest(self.data.key, backbone)
        teacher = Teacher.load(path, origin)
        if teacher is None:
            teacher = ask_teacher(backbone, self.network.config, self.data.photos, self.data.photo_labels)
            teacher.save(path, origin)
        return teacher


def _origin(recipe: Recipe, data: TrainingSet, backbone: dict[str, torch.Tensor], start: Network | None) -> str:
    """Hex digest of everything that determines the state of a training."""
    # A prior and a vocabulary are made anew after the training, so a start may get its own while the training goes on.
    state = {} if start is None else start.without_prior().without_vocabulary().state_dict()
    begin = {f"start.{name}": tensor for name, tensor in state.items()}
    return _digest(repr(recipe) + data.key, backbone | begin)


def _digest(words: str, weights: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(words.encode())
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(tensor.float().contiguous().numpy().tobytes())
    return digest.hexdigest()
