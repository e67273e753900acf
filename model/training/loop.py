"""The training loop: reproducible steps, and a saved state from which an interrupted training continues."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Generic, Protocol, Self, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from model.errors import ModelError
from model.evaluation import draw_curve

Trained = TypeVar("Trained", bound=nn.Module)


class Pace(Protocol):
    """What the loop reads of a recipe; ``model.papers.recipe`` explains each.

    clip: the largest norm of the gradients. average: how much of the running average of the weights is kept.
    """

    @property
    def steps(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def save_every(self) -> int: ...
    @property
    def evaluate_every(self) -> int: ...
    @property
    def clip(self) -> float: ...
    @property
    def average(self) -> float: ...


class Loop(ABC, Generic[Trained]):
    """One training: what is trained, the running average of its weights, the optimiser, and the folder of its state.

    A subclass says what a step computes. It calls ``resume`` at the end of its constructor.

    Args:
        recipe: how long to train, and how often to save and evaluate.
        folder: where state.safetensors, log.jsonl and curve.png are kept; a training found there is continued.
        network: what is trained.
        origin: digest of everything that determines the state of the training.
    """

    def __init__(self, recipe: Pace, folder: Path, network: Trained, origin: str) -> None:
        self.pace, self.folder, self.origin = recipe, folder, origin
        folder.mkdir(parents=True, exist_ok=True)
        self.network: Trained = network.train()
        self.average: Trained = copy.deepcopy(self.network).requires_grad_(False)
        self.optimiser: torch.optim.Optimizer = self.make_optimiser()
        self.step = 0

    @abstractmethod
    def make_optimiser(self) -> torch.optim.Optimizer:
        """A new optimiser of the network's parameters."""

    @abstractmethod
    def prepare(self) -> None:
        """Sets what depends on the step that comes next, such as the learning rates."""

    @abstractmethod
    def losses(self) -> dict[str, torch.Tensor]:
        """The losses of the step by name; the same step gives the same losses."""

    def restore_shape(self) -> None:
        """Gives the network the shape that it had when the state of ``step`` was saved."""

    def resume(self) -> None:
        """Continues the training whose state is in the folder, if there is one."""
        if self.state_path.exists():
            self._restore()
        elif self.log_path.exists():
            # Of a training that was stopped before its first saved state.
            self._cut_log()

    @property
    def state_path(self) -> Path:
        """The file with everything that is needed to continue."""
        return self.folder / "state.safetensors"

    @property
    def log_path(self) -> Path:
        """A file with one JSON object for each step: losses, seconds and, at times, validation figures."""
        return self.folder / "log.jsonl"

    def run(self, validate: Callable[[Self], dict[str, float]] | None = None, until: int | None = None) -> None:
        """Trains to the end of the recipe, or to step ``until``.

        ``validate`` is called every ``evaluate_every`` steps; its figures are added to the log.
        """
        last = min(until or self.pace.steps, self.pace.steps)
        bar = tqdm(total=self.pace.steps, initial=self.step, desc="training", unit="step", disable=None)
        while self.step < last:
            began = time.monotonic()
            losses = self.train_step()
            entry: dict[str, float | int] = {"step": self.step, "of": self.pace.steps, **losses}
            entry["seconds"] = round(time.monotonic() - began, 3)
            bar.update()
            bar.set_postfix(losses, refresh=False)
            if validate is not None and (self.step % self.pace.evaluate_every == 0 or self.step == self.pace.steps):
                entry |= validate(self)
            with self.log_path.open("a") as log:
                log.write(json.dumps(entry) + "\n")
            if self.step % self.pace.save_every == 0 or self.step == last:
                self.save()
                draw_curve(self.log_path, self.folder / "curve.png")
        bar.close()

    def train_step(self) -> dict[str, float]:
        """Makes one optimiser step and returns the losses by name. Raises ModelError where they are not finite."""
        self.prepare()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.pace.seed * 1_000_003 + self.step)
            # On a CPU the backward pass of the fused attention kernel is slower than that of plain products.
            with sdpa_kernel(SDPBackend.MATH):
                losses = self.losses()
                total = torch.stack(list(losses.values())).sum()
                self.optimiser.zero_grad(set_to_none=True)
                torch.autograd.backward(total)
        if not torch.isfinite(total):
            raise ModelError(f"training diverged at step {self.step}; lower the learning rates in the recipe")
        nn.utils.clip_grad_norm_(self.network.parameters(), self.pace.clip)
        self.optimiser.step()
        self.step += 1
        kept = min(self.pace.average, (1 + self.step) / (10 + self.step))
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
        self.restore_shape()
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


def digest(words: str, weights: dict[str, torch.Tensor]) -> str:
    """Hex digest of some words and of the values of some tensors by their names."""
    found = hashlib.sha256(words.encode())
    for name, tensor in sorted(weights.items()):
        found.update(name.encode())
        found.update(tensor.float().contiguous().numpy().tobytes())
    return found.hexdigest()


def warmed_cosine(step: int, steps: int, warmup: int, first: float, last: float) -> float:
    """The learning rate of a step, from 0: raised linearly to ``first``, then lowered by a cosine towards ``last``."""
    if step < warmup:
        return first * (step + 1) / warmup
    part = (step - warmup) / max(1, steps - warmup)
    return last + (first - last) * (1 + math.cos(math.pi * part)) / 2
