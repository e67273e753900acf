"""Runs trainings of all methods, from the first step to the checkpoint; a training that was stopped continues."""

import copy
import hashlib
import json
import math
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from model.checkpoint import replacing, save_checkpoint
from model.datasets import Corpus
from model.errors import ModelError
from model.evaluation import calibrated, counts, relevance, score_matrices, trained_matcher
from model.files import check_replaceable
from model.metrics import category_metrics
from model.network import RetNetwork
from model.papers.pictures import training_corpora
from model.papers.recipe import Recipe

Trained = TypeVar("Trained", bound=nn.Module)

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Run:
    """The options of ``python -m model train``."""

    recipe: Path
    backbone: str  # pretrained weights to start from, a file or a timm tag
    folder: Path  # keeps the state of the training; a training found there is continued
    target: Path  # the checkpoint to write
    data: Path | None = None  # class folders; None for the data that SKETCH_SEARCH_DATA names
    start: Path | None = None  # a checkpoint to start from instead of the backbone
    until: int | None = None  # the step to stop after; None for the recipe's last
    words: Path | None = None  # a file of word vectors; None for the stand-in of the optional data
    device: torch.device = CPU  # where the steps are computed

    @property
    def origin(self) -> str:
        """A note for the checkpoint that says where it comes from."""
        return f"trained by recipe {self.recipe.name} from {(self.start or Path(self.backbone)).name}"


def digest(words: str, weights: Mapping[str, torch.Tensor]) -> str:
    found = hashlib.sha256(words.encode())
    for name, tensor in sorted(weights.items()):
        found.update(name.encode())
        found.update(tensor.float().contiguous().numpy().tobytes())
    return found.hexdigest()


class Diverged(ModelError):
    """The losses or the scores of a training are no longer finite."""

    def __init__(self, step: int) -> None:
        super().__init__(f"training diverged at step {step}; lower the learning rates in the recipe")
        self.step = step


def warmed_cosine(step: int, steps: int, warmup: int, last: float) -> float:
    """Returns the learning rate's share at step 0, 1, ...: a linear rise to 1, then a fall by a cosine to ``last``."""
    if step < warmup:
        return (step + 1) / warmup
    part = (step - warmup) / max(1, steps - warmup)
    return last + (1 - last) * (1 + math.cos(math.pi * part)) / 2


class Trainer(ABC, Generic[Trained]):
    """A training by a recipe: the network, the running average of its weights, the optimiser, and its state on disk.

    A training that was stopped and goes on gives exactly the weights of one that was not stopped.

    Args:
        network: this is trained, and moved to the device.
        folder: keeps state.safetensors, all that is needed to continue, and log.jsonl, with the losses, seconds and, at
            times, validation figures of each step. A training found there is continued.
        origin: a digest of everything that determines the state of the training; ModelError for another one.
    """

    recipe: Recipe

    def __init__(self, recipe: Recipe, network: Trained, folder: Path, origin: str, device: torch.device = CPU) -> None:
        self.recipe, self.folder, self.origin, self.device = recipe, folder, origin, device
        self.dtype = recipe.dtype_on(device)
        folder.mkdir(parents=True, exist_ok=True)
        self.state_path, self.log_path = folder / "state.safetensors", folder / "log.jsonl"
        self.network: Trained = network.to(self.device).train()
        self.average: Trained = copy.deepcopy(self.network).requires_grad_(False)
        self.optimiser: torch.optim.Optimizer = self.make_optimiser()
        self.step = 0
        if self.state_path.exists():
            self._restore()
        else:
            self.begin()
        self._cut_log()

    def begin(self) -> None:
        """Prepares ``network`` and ``average`` for the first step of a new training."""

    @abstractmethod
    def make_optimiser(self) -> torch.optim.Optimizer:
        """Makes a new optimiser of the network's parameters, each group with its "rate" after the warm-up."""

    @property
    @abstractmethod
    def trained(self) -> RetNetwork:
        """The network as it would be saved now: the average over steps."""

    def figures(self, validation: Corpus) -> dict[str, float]:
        """Measures the network on validation classes, for the log: mAP@all of each method, such as "val_ret"."""
        recipe = self.recipe
        part, relevant = self.judged(validation, recipe.evaluate_share)
        scores = score_matrices(trained_matcher(self.trained, self.dtype, recipe.methods), part)
        if any(np.isnan(matrix).any() for matrix in scores.values()):
            raise Diverged(self.step)
        figures = {method: category_metrics(matrix, relevant)["map_all"] for method, matrix in scores.items()}
        return {f"val_{method}": round(figure, 4) for method, figure in figures.items()}

    def judged(self, validation: Corpus, share: int) -> tuple[Corpus, NDArray[np.bool_]]:
        """Chooses every ``share``-th picture, and says which photos are right for each sketch: (sketches, photos)."""
        part = validation.subsampled(share, share)
        return part, relevance(part)

    @property
    def step_seed(self) -> int:
        """The seed of all random choices of the next step."""
        return self.recipe.seed * 1_000_003 + self.step

    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.step_seed)

    @abstractmethod
    def losses(self) -> dict[str, torch.Tensor]:
        """Computes the losses of the step by name; the same step gives the same losses."""

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16)

    def run(self, validation: Corpus | None = None, until: int | None = None) -> None:
        """Trains to the end, or to step ``until``.

        SIGINT and SIGTERM end the step under way and save the state before they act as usual; a second signal acts at
        once.
        """
        recipe = self.recipe
        last = min(until or recipe.steps, recipe.steps)
        bar = tqdm(total=recipe.steps, initial=self.step, desc="training", unit="step", disable=None)
        with bar, noted_signals() as noted:
            while self.step < last and not noted:
                began = time.monotonic()
                losses = self.train_step()
                entry: dict[str, float | int] = {"step": self.step, "of": recipe.steps, **losses}
                entry["seconds"] = round(time.monotonic() - began, 3)
                bar.update()
                bar.set_postfix(losses, refresh=False)
                if validation is not None and (self.step % recipe.evaluate_every == 0 or self.step == recipe.steps):
                    entry |= self.figures(validation)
                with self.log_path.open("a") as log:
                    log.write(json.dumps(entry) + "\n")
                if self.step % recipe.save_every == 0 or self.step == last or noted:
                    self.save()
        for number in noted:
            signal.raise_signal(number)

    def train_step(self) -> dict[str, float]:
        chosen = self.recipe.optimiser
        share = warmed_cosine(self.step, self.recipe.steps, chosen.warmup, chosen.last)
        for group in self.optimiser.param_groups:
            group["lr"] = share * group["rate"]
        # On a CPU the fused attention kernel has a slower backward pass than plain products.
        kernels = [SDPBackend.MATH] if self.device.type == "cpu" else [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]
        devices = [] if self.device.type == "cpu" else [self.device]
        with torch.random.fork_rng(devices), sdpa_kernel(kernels):
            torch.manual_seed(self.step_seed)
            losses = self.losses()
            total = torch.stack(list(losses.values())).sum()
            self.optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(total)
        if not torch.isfinite(total):
            raise Diverged(self.step)
        nn.utils.clip_grad_norm_(self.network.parameters(), chosen.clip)
        self.optimiser.step()
        self.step += 1
        kept = min(chosen.average, (1 + self.step) / (10 + self.step))
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
        metadata = {"step": str(self.step), "origin": self.origin}
        with replacing(self.state_path) as partial:
            save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, partial, metadata=metadata)

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
        for part, network in (("network.", self.network), ("average.", self.average)):
            network.load_state_dict({k.removeprefix(part): v for k, v in tensors.items() if k.startswith(part)})
        parameters = dict(self.network.named_parameters())
        for full, tensor in tensors.items():
            if full.startswith("optimiser."):
                _, key, name = full.split(".", 2)
                # AdamW counts its steps on the CPU.
                self.optimiser.state[parameters[name]][key] = tensor if key == "step" else tensor.to(self.device)

    def _cut_log(self) -> None:
        """Drops log lines of steps after the saved state, which will be repeated, and a line that is incomplete."""
        lines = []
        text = self.log_path.read_text() if self.log_path.exists() else ""
        if text and not text.startswith('{"step"'):
            raise ModelError(f"{self.log_path} is not of a training; name another folder with --run")
        for line in text.splitlines():
            with suppress(json.JSONDecodeError):
                if json.loads(line)["step"] <= self.step:
                    lines.append(line + "\n")
        self.log_path.write_text("".join(lines))


@contextmanager
def noted_signals() -> Iterator[list[int]]:
    """While the block runs, a first SIGINT or SIGTERM only goes into the list; a second signal acts as before."""
    noted: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # Signals that are ignored stay ignored.
    before = {number: handler for number, handler in handlers.items() if handler not in (None, signal.SIG_IGN)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _: object) -> None:
        noted.append(number)
        restore()

    try:
        for number in before:
            signal.signal(number, note)
        yield noted
    finally:
        restore()


def check_target(target: Path, folder: Path | None = None) -> None:
    """Raises UserError if the checkpoint cannot be written there; the training makes ``folder``."""
    if target.parent != folder and not target.parent.is_dir():
        raise ModelError(f"there is no folder {target.parent} to write {target.name} to; make it first")
    check_replaceable(target)


def run_steps(trainer: Trainer[Trained], run: Run, validation: Corpus | None) -> bool:
    trainer.run(validation, run.until)
    if trainer.step < trainer.recipe.steps:
        print(f"stopped at step {trainer.step} of {trainer.recipe.steps}; the same command continues from here")
        return False
    return True


# From a recipe, the options, the training and the validation pictures: the trainer, and notes for the checkpoint.
Begin: TypeAlias = Callable[[Any, Run, Corpus, Corpus], tuple[Trainer[Any], Mapping[str, str]]]


def train_from_backbone(begin: Begin, recipe: Recipe, run: Run) -> None:
    """Trains a network, calibrates it on the validation classes, and writes the checkpoint."""
    if run.start is not None:
        raise ModelError(f"{recipe.title} starts from a backbone alone: leave --start out")
    pictures = training_corpora(run.data, recipe)
    training, validation = pictures.training, pictures.validation
    if validation is None:
        raise ModelError(f'a recipe of {recipe.title} is calibrated on the validation classes: leave "val" out')
    print(f"training on {counts(training)}; calibrated on {counts(validation)}")
    trainer, notes = begin(recipe, run, training, validation)
    if run_steps(trainer, run, validation):
        chosen_on, relevant = trainer.judged(validation, recipe.choose_share)
        ready, figures = calibrated(trainer.trained, chosen_on, trainer.dtype, recipe.methods, relevant)
        save_checkpoint(
            ready.cpu().half(),
            run.target,
            {"origin": run.origin, **notes, **pictures.seen.note(), "validation": json.dumps(figures)},
        )
        print(f"wrote {run.target}; mAP@all on validation classes: {figures}")
