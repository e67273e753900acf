"""Training: a loop that goes on where it was stopped, and the calibration of the network that it leaves."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Generic, Self, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from model.datasets import Corpus
from model.errors import ModelError
from model.evaluation import encode_pictures, relevance
from model.matcher import Matcher
from model.metrics import category_metrics
from model.network import Calibration, Method, RetNetwork, Tokens
from model.ranking import diffused

Trained = TypeVar("Trained", bound=nn.Module)


@dataclass(frozen=True)
class Pace:
    """The length of a training, and the intervals of its savings and evaluations.

    Attributes:
        steps: the whole training has so many.
        seed: it decides all random choices of a step, together with the step's number.
        clip: the largest norm of the gradients.
        average: the share of the running average of the weights that each step keeps, in [0, 1); 0 for no average.
        save_every, evaluate_every: steps between saved states, and between evaluations.
    """

    steps: int
    seed: int = 0
    clip: float = math.inf
    average: float = 0.0
    save_every: int = 50
    evaluate_every: int = 250


class Loop(ABC, Generic[Trained]):
    """One training: what is trained, the running average of its weights, the optimiser, and the folder of its state.

    A subclass says what a step computes. It calls ``resume`` at the end of its constructor. On a CPU, a training that
    was stopped and goes on gives exactly the weights of one that was not stopped.

    Args:
        network: this is trained; it is moved to the device.
        pace: how long, and how often the state is saved.
        folder: keeps state.safetensors and log.jsonl; a training found there is continued.
        origin: a digest of everything that determines the state of the training.
        device: where it computes.
        dtype: torch.bfloat16 computes in bfloat16 what autocast allows, within ``autocast``.
    """

    def __init__(
        self,
        network: Trained,
        pace: Pace,
        folder: Path,
        origin: str,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.pace, self.folder, self.origin = pace, folder, origin
        self.device, self.dtype = torch.device(device), dtype
        folder.mkdir(parents=True, exist_ok=True)
        self.network: Trained = network.to(self.device).train()
        self.average: Trained = copy.deepcopy(self.network).requires_grad_(False)
        self.optimiser: torch.optim.Optimizer = self.make_optimiser()
        self.step = 0

    @abstractmethod
    def make_optimiser(self) -> torch.optim.Optimizer:
        """Makes a new optimiser of the network's parameters."""

    @abstractmethod
    def prepare(self) -> None:
        """Sets what depends on the step that comes next, such as the learning rates."""

    @abstractmethod
    def losses(self) -> dict[str, torch.Tensor]:
        """Computes the losses of the step by name; the same step gives the same losses."""

    def autocast(self) -> torch.autocast:
        """Within this block, the device computes in ``dtype`` what autocast allows."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16)

    def resume(self) -> None:
        """Continues the training whose state is in the folder, if there is one.

        Raises ModelError for a state of another origin.
        """
        if self.state_path.exists():
            self._restore()
        elif self.log_path.exists():
            # The training was stopped before its first saved state.
            self._cut_log()

    @property
    def state_path(self) -> Path:
        """This file holds everything that is needed to continue."""
        return self.folder / "state.safetensors"

    @property
    def log_path(self) -> Path:
        """This file has one JSON object for each step: losses, seconds and, at times, validation figures."""
        return self.folder / "log.jsonl"

    def run(self, validate: Callable[[], Mapping[str, float]] | None = None, until: int | None = None) -> None:
        """Trains to the end, or to step ``until``.

        SIGINT and SIGTERM end the step under way and save the state before they act as usual; a second signal acts at
        once. ``validate`` is called every ``evaluate_every`` steps and at the end; its figures are added to the log.
        """
        pace = self.pace
        last = min(until or pace.steps, pace.steps)
        bar = tqdm(total=pace.steps, initial=self.step, desc="training", unit="step", disable=None)
        with bar, _Signals() as signals:
            while self.step < last and signals.noted is None:
                began = time.monotonic()
                losses = self.train_step()
                entry: dict[str, float | int] = {"step": self.step, "of": pace.steps, **losses}
                entry["seconds"] = round(time.monotonic() - began, 3)
                bar.update()
                bar.set_postfix(losses, refresh=False)
                if validate is not None and (self.step % pace.evaluate_every == 0 or self.step == pace.steps):
                    entry |= validate()
                with self.log_path.open("a") as log:
                    log.write(json.dumps(entry) + "\n")
                if self.step % pace.save_every == 0 or self.step == last or signals.noted is not None:
                    self.save()
        if signals.noted is not None:
            signal.raise_signal(signals.noted)

    def train_step(self) -> dict[str, float]:
        """Makes one optimiser step and returns the losses by name. Raises ModelError where they are not finite."""
        self.prepare()
        with ExitStack() as stack:
            index = [] if self.device.type == "cpu" else [self.device.index or 0]
            stack.enter_context(torch.random.fork_rng(index, device_type=self.device.type if index else "cuda"))
            torch.manual_seed(self.pace.seed * 1_000_003 + self.step)
            if not index:
                # On a CPU the backward pass of the fused attention kernel is slower than that of plain products.
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
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
                if value is not None:
                    tensors[f"optimiser.{key}.{name}"] = torch.as_tensor(value)
        partial = self.state_path.with_suffix(".partial")
        metadata = {"step": str(self.step), "origin": self.origin}
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, partial, metadata=metadata)
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
        for part, network in (("network.", self.network), ("average.", self.average)):
            network.load_state_dict({k.removeprefix(part): v for k, v in tensors.items() if k.startswith(part)})
        parameters = dict(self.network.named_parameters())
        for full, tensor in tensors.items():
            if full.startswith("optimiser."):
                _, key, name = full.split(".", 2)
                # Optimisers count their steps on the CPU.
                self.optimiser.state[parameters[name]][key] = tensor if key == "step" else tensor.to(self.device)

    def _cut_log(self) -> None:
        """Drops log lines of steps after the saved state, which will be repeated, and a line that is incomplete."""
        lines = []
        for line in self.log_path.read_text().splitlines() if self.log_path.exists() else ():
            with suppress(json.JSONDecodeError):
                if json.loads(line)["step"] <= self.step:
                    lines.append(line + "\n")
        self.log_path.write_text("".join(lines))


class _Signals:
    """While this is entered, the first SIGINT or SIGTERM is only noted; a second one acts as before."""

    def __init__(self) -> None:
        self.noted: int | None = None
        self._handlers: dict[int, Callable[[int, FrameType | None], object] | int] = {}

    def __enter__(self) -> Self:
        # Only the main thread may set handlers, and signals that are ignored stay so.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                if handler is not None and handler != signal.SIG_IGN:
                    self._handlers[number] = handler
                    signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.noted = number
        self.__exit__()


def digest(words: str, weights: Mapping[str, torch.Tensor]) -> str:
    """Hex digest of some words and of the values of some tensors by their names."""
    found = hashlib.sha256(words.encode())
    for name, tensor in sorted(weights.items()):
        found.update(name.encode())
        found.update(tensor.float().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def warmed_cosine(step: int, steps: int, warmup: int, first: float, last: float) -> float:
    """The learning rate of a step, from 0: it rises linearly to ``first``, then falls by a cosine towards ``last``."""
    if step < warmup:
        return first * (step + 1) / warmup
    part = (step - warmup) / max(1, steps - warmup)
    return last + (first - last) * (1 + math.cos(math.pi * part)) / 2


Calibrated = TypeVar("Calibrated", bound=RetNetwork)
BOTH: tuple[Method, ...] = ("rn", "ret")
# These weights of the fusion and thresholds of the diffusion are tried.
FUSIONS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
DIFFUSIONS = (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5)


def trained_matcher(
    network: RetNetwork, dtype: torch.dtype = torch.float32, methods: Sequence[Method] = BOTH
) -> Matcher:
    """Copies a network in training into a matcher that scores by the methods that are being trained."""
    calibration = Calibration(methods=tuple(methods), best_method=methods[0])
    return Matcher(network.with_calibration(calibration).set_precision(dtype), "untracked", variants=1)


def encoded(matcher: Matcher, corpus: Corpus) -> tuple[Tokens, Tokens]:
    """Encodes the sketches of a corpus, and its photos."""
    return encode_pictures(matcher, corpus.sketches, "sketch"), encode_pictures(matcher, corpus.photos, "photo")


def validation_figures(
    network: RetNetwork,
    validation: Corpus,
    share: int = 1,
    dtype: torch.dtype = torch.float32,
    methods: Sequence[Method] = BOTH,
) -> dict[str, float]:
    """Measures a network in training on validation pictures, for its log.

    Args:
        share: n uses every n-th sketch and photo of ``validation``.
        dtype: precision in which the scores are computed.
        methods: those that are trained.

    Returns:
        mAP@all of each method, such as "val_ret".
    """
    part = Corpus(validation.sketches[::share], validation.photos[::share])
    matcher = trained_matcher(network, dtype, methods)
    queries, gallery = encoded(matcher, part)
    relevant = relevance(part)
    figures = {}
    for method in matcher.methods:
        scores = matcher.scores(queries, gallery, method).numpy()
        figures[f"val_{method}"] = round(category_metrics(scores, relevant)["map_all"], 4)
    return figures


def calibrated(
    network: Calibrated,
    validation: Corpus,
    dtype: torch.dtype = torch.float32,
    methods: Sequence[Method] = BOTH,
) -> tuple[Calibrated, dict[str, float]]:
    """Chooses a calibration by mAP@all on the validation classes.

    The fusion weight is the best of FUSIONS. The best method and the diffusion threshold, one of DIFFUSIONS, are those
    with the highest mAP@all after diffusion.

    Args:
        dtype: precision in which the scores are computed.
        methods: those that were trained; where both were, "fused" is added.

    Returns:
        A copy of the network with its calibration, and the mAP@all of each method and of the best one after diffusion.

    Raises:
        ModelError: there are no validation pictures.
    """
    if not validation.sketches or not validation.photos:
        raise ModelError("methods are chosen on validation classes; there are none")
    matcher = trained_matcher(network, dtype, methods)
    queries, gallery = encoded(matcher, validation)
    relevant = relevance(validation)

    def figure(scores: torch.Tensor) -> float:
        return category_metrics(scores.numpy(), relevant)["map_all"]

    scores: dict[Method, torch.Tensor] = {}
    fusion = None
    if "rn" in methods:
        logits = matcher.relation_logits(queries, gallery)
        scores["rn"] = logits.sigmoid()
    if "ret" in methods:
        distances = matcher.ret_distances(queries, gallery)
        scores["ret"] = -distances
    if len(scores) == 2:
        fusion = max(FUSIONS, key=lambda weight: figure(logits - weight * distances))
        scores["fused"] = logits - fusion * distances
    figures = {str(method): figure(matrix) for method, matrix in scores.items()}
    after = {(m, c): figure(diffused(matrix, gallery.ret, c, m)) for m, matrix in scores.items() for c in DIFFUSIONS}
    best, diffusion = max(after, key=lambda chosen: after[chosen])
    calibration = Calibration(methods=tuple(scores), best_method=best, fusion=fusion, diffusion=diffusion)
    all_figures = figures | {f"{best}+diffusion": after[best, diffusion]}
    return network.with_calibration(calibration), {name: round(value, 4) for name, value in all_figures.items()}
