"""Training, step by reproducible step, resumable from its last checkpoint at any moment."""

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
    """What is asked of the network at each step."""

    def losses(self, network: Network, step: int, side: int) -> dict[str, torch.Tensor]:
        """Losses by name, for pictures of ``side`` pixels; the same for the same step."""
        ...


class Trainer:
    """One run: its network, the average of its weights, its optimiser, its place on disk.

    Args:
        recipe: what to do.
        data: what to learn from.
        backbone: weights to start from, under timm's key names; they are the teacher, too.
        folder: where state.safetensors, log.jsonl and curve.png are kept; a run found there is continued.
        start: a network trained before, to begin with instead of the backbone.
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
            self._begin_with(start)
        self.network.train()
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.optimiser = self._optimiser()
        self.step = 0
        self.origin = _origin(recipe, data, backbone, start)
        self.objective: Objective = (
            ListwiseObjective(recipe, data, self._teacher(backbone))
            if recipe.quadruplets is None
            else QuadrupletObjective(recipe, data, recipe.quadruplets)
        )
        if self.state_path.exists():
            self._restore()

    @property
    def state_path(self) -> Path:
        """Everything a run needs to go on."""
        return self.folder / "state.safetensors"

    @property
    def log_path(self) -> Path:
        """One JSON object a step: its losses, now and then validation figures, seconds it took."""
        return self.folder / "log.jsonl"

    def run(self, look: Callable[[Trainer], dict[str, float]] | None = None, until: int | None = None) -> None:
        """Trains to the end of the recipe, or to step ``until``; ``look`` adds figures to the log now and then."""
        last = min(until or self.recipe.steps, self.recipe.steps)
        bar = tqdm(total=self.recipe.steps, initial=self.step, desc="training", unit="step", disable=None)
        while self.step < last:
            began = time.monotonic()
            losses = self.train_step()
            entry: dict[str, float | int] = {"step": self.step, "of": self.recipe.steps, **losses}
            entry["seconds"] = round(time.monotonic() - began, 3)
            bar.update()
            bar.set_postfix(losses, refresh=False)
            if look is not None and (self.step % self.recipe.evaluate_every == 0 or self.step == self.recipe.steps):
                entry |= look(self)
            with self.log_path.open("a") as log:
                log.write(json.dumps(entry) + "\n")
            if self.step % self.recipe.save_every == 0 or self.step == last:
                self.save()
                draw_curve(self.log_path, self.folder / "curve.png")
        bar.close()

    def train_step(self) -> dict[str, float]:
        """One optimiser step; the losses by name."""
        phase = self.recipe.phase_at(self.step)
        self._resize(phase.image_size)
        self._set_rates(phase.encoder)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe.seed * 1_000_003 + self.step)
            # On a CPU the fused kernel's backward pass is slower than plain products.
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
        """Writes the run's state, atomically."""
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
                    "name another folder with --run, or remove this one to start anew"
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
        """Drops what was logged after the state was saved, and a line that a kill cut short: it will be done again."""
        lines = []
        for line in self.log_path.read_text().splitlines() if self.log_path.exists() else ():
            with suppress(json.JSONDecodeError):
                if json.loads(line)["step"] <= self.step:
                    lines.append(line + "\n")
        self.log_path.write_text("".join(lines))

    def _begin_with(self, start: Network) -> None:
        side, config = self.network.config.image_size, start.config
        if side != config.image_size:
            start = resized(start, dataclasses.replace(config, image_size=side), self.native)
        try:
            self.network.load_state_dict(start.state_dict())
        except RuntimeError as error:
            raise ModelError(f"the network to begin with ({config.name}) is not the recipe's: {error}") from error

    def _optimiser(self) -> torch.optim.AdamW:
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        pretrained = isinstance(self.network.encoder, Encoder)
        for name, parameter in self.network.named_parameters():
            # The learnable tokenizer starts from nothing, like the heads; so does an encoder that is no ViT.
            encoder = pretrained and name.startswith("encoder.") and ".learnable." not in name
            groups.setdefault((encoder, parameter.ndim > 1), []).append(parameter)
        chosen = self.recipe.optimiser
        return torch.optim.AdamW(
            [
                {"params": parameters, "encoder": encoder, "weight_decay": chosen.decay if matrix else 0.0}
                for (encoder, matrix), parameters in groups.items()
            ],
            lr=chosen.head_rate,
        )

    def _set_rates(self, encoder: bool) -> None:
        chosen = self.recipe.optimiser
        part = max(0.0, self.step / self.recipe.steps - chosen.stable) / max(1 - chosen.stable, 1e-9)
        factor = min(1.0, (self.step + 1) / chosen.warmup) * (0.01 + 0.99 * (1 + math.cos(math.pi * part)) / 2)
        for group in self.optimiser.param_groups:
            group["lr"] = factor * (chosen.encoder_rate if group["encoder"] else chosen.head_rate)
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
        # It does not depend on the recipe, so that runs with others may be given its answers.
        origin = _digest(self.data.key, backbone)
        teacher = Teacher.load(path, origin)
        if teacher is None:
            teacher = ask_teacher(backbone, self.network.config, self.data.photos, self.data.photo_labels)
            teacher.save(path, origin)
        return teacher


def _origin(recipe: Recipe, data: TrainingSet, backbone: dict[str, torch.Tensor], start: Network | None) -> str:
    """Hex digest of all that a run's state follows from."""
    begin = {} if start is None else {f"start.{name}": tensor for name, tensor in start.state_dict().items()}
    return _digest(repr(recipe) + data.key, backbone | begin)


def _digest(words: str, weights: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(words.encode())
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(tensor.float().contiguous().numpy().tobytes())
    return digest.hexdigest()
