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

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from model.augmentation import Augmentation
from model.backbone import POSITION, from_backbone, resized
from model.curve import draw_curve
from model.errors import ModelError
from model.losses import (
    bank_loss,
    belief_loss,
    calibration_loss,
    contrast_loss,
    instance_loss,
    listwise_loss,
    teacher_loss,
)
from model.network import Network
from model.recipe import Recipe
from model.relation import BestMatchRelation
from model.teacher import Teacher, ask_teacher
from model.training_set import TrainingSet


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
        self.teacher = self._teacher(backbone)
        self.neighbours = self._neighbours()
        self.class_beliefs = self.teacher.class_means(self.teacher.beliefs)
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
                losses = self._losses(phase.image_size)
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

    def _losses(self, side: int) -> dict[str, torch.Tensor]:
        recipe, weights, teacher = self.recipe, self.recipe.weights, self.teacher
        vary = Augmentation(recipe.seed * 1_000_003 + self.step)
        classes = self._classes(vary.generator)
        sketch_rows = torch.cat(
            [self._pick(self.data.sketch_rows[c], recipe.batch.sketches, vary.generator) for c in classes]
        )
        photo_rows = torch.cat([self._pick(self.data.photo_rows[c], 1, vary.generator) for c in classes])
        drawn_rows = torch.randint(len(self.data.photos), (recipe.batch.drawn,), generator=vary.generator)
        sketch_labels = classes.repeat_interleave(recipe.batch.sketches)
        ink = vary.sketches(1 - self.data.sketches[sketch_rows].float() / 255)
        if recipe.batch.drawn:
            lines = vary.sketches(vary.drawn(self.data.photos[drawn_rows].float() / 255))
            ink = torch.cat([ink, lines])
        photos = vary.photos(self.data.photos[photo_rows].float() / 255)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=recipe.bf16):
            s = self.network.encode(network_input(1 - ink.expand(-1, 3, -1, -1), side), "sketch")
            p = self.network.encode(network_input(photos, side), "photo")
            first = torch.arange(len(classes)) * recipe.batch.sketches
            count = len(classes)
            sketch_side = self.network.project(s[first], "sketch").rows(torch.arange(count).repeat_interleave(count))
            photo_side = self.network.project(p, "photo").rows(torch.arange(count).repeat(count))
            logits = self.network.relate(sketch_side, photo_side).view(count, count)
        real, drawn = s.ret.float()[: len(sketch_rows)], s.ret.float()[len(sketch_rows) :]
        seen = p.ret.float()
        losses: dict[str, torch.Tensor] = {}
        if weights.bank:
            bank = bank_loss(real, sketch_labels, teacher, recipe.temperature)
            if len(drawn):
                bank = bank + 0.25 * instance_loss(drawn, drawn_rows, teacher, recipe.temperature)
            losses["bank"] = weights.bank * bank
        if weights.contrast:
            losses["contrast"] = weights.contrast * contrast_loss(real, seen, recipe.temperature)
        if weights.labels and teacher.beliefs.shape[1]:
            beliefs = [self.class_beliefs[sketch_labels], teacher.beliefs[drawn_rows], teacher.beliefs[photo_rows]]
            losses["labels"] = weights.labels * belief_loss(torch.cat([real, drawn, seen]), torch.cat(beliefs), teacher)
        if weights.teacher:
            same = torch.cat([photo_rows, drawn_rows])
            losses["teacher"] = weights.teacher * teacher_loss(torch.cat([seen, drawn]), same, teacher)
        if weights.relation:
            losses["relation"] = weights.relation * listwise_loss(logits)
            if isinstance(self.network.relation, BestMatchRelation):
                losses["calibration"] = 0.1 * calibration_loss(logits, self.network.relation.bias)
        return losses

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
        for name, parameter in self.network.named_parameters():
            # The learnable tokenizer starts from nothing, like the heads.
            encoder = name.startswith("encoder.") and ".learnable." not in name
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
        part = max(0.0, self.step / self.recipe.steps - chosen.stable) / (1 - chosen.stable)
        factor = min(1.0, (self.step + 1) / chosen.warmup) * (0.01 + 0.99 * (1 + math.cos(math.pi * part)) / 2)
        for group in self.optimiser.param_groups:
            group["lr"] = factor * (chosen.encoder_rate if group["encoder"] else chosen.head_rate)
        self.network.encoder.requires_grad_(encoder)

    def _resize(self, side: int) -> None:
        if self.network.config.image_size == side:
            return
        config = self.recipe.config(side)
        config = dataclasses.replace(config, methods=("ret",), best_method="ret", fusion=None)
        old, self.network = self.network, resized(self.network, config, self.native).train()
        self.average = resized(self.average, config, self.native).requires_grad_(False)
        before, self.optimiser = self.optimiser.state, self._optimiser()
        for (name, parameter), previous in zip(self.network.named_parameters(), old.parameters(), strict=True):
            if name != POSITION and previous in before:
                self.optimiser.state[parameter] = before[previous]

    def _classes(self, generator: torch.Generator) -> torch.Tensor:
        count = min(self.recipe.batch.classes, self.teacher.classes)
        order = torch.randperm(self.teacher.classes, generator=generator)
        near = self.neighbours[order[0], : round(self.recipe.batch.near * count)]
        chosen = torch.cat([order[:1], near])
        rest = order[~torch.isin(order, chosen)]
        return torch.cat([chosen, rest])[:count]

    def _neighbours(self) -> torch.Tensor:
        means = F.normalize(self.teacher.class_means(self.teacher.features), dim=1)
        return (means @ means.T).fill_diagonal_(-2).argsort(dim=1, descending=True)

    def _pick(self, rows: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
        return rows[torch.randint(len(rows), (count,), generator=generator)]

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


def network_input(pictures: torch.Tensor, side: int) -> torch.Tensor:
    """(b, 3, H, W) in [0, 1] -> (b, 3, side, side) normalised to mean and std 0.5, shrunk with antialias."""
    if pictures.shape[-1] != side:
        pictures = F.interpolate(pictures, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
    return pictures * 2 - 1
