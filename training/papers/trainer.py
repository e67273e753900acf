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
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from sketch_search.model.engine import SeenClasses, is_checkpoint, seen_classes
from sketch_search.model.errors import ModelError
from sketch_search.model.metrics import category_metrics
from sketch_search.model.torch import RetNetwork
from sketch_search.model.torch.checkpoint import load_network, replacing, save_checkpoint
from sketch_search.training.corpus import Corpus
from sketch_search.training.evaluation.figures import relevance
from sketch_search.training.evaluation.scoring import calibrate, counts, score_matrices, trained_matcher
from sketch_search.training.papers.pictures import training_corpora
from sketch_search.training.papers.recipe import Recipe

Trained = TypeVar("Trained", bound=nn.Module)
Started = TypeVar("Started", bound=RetNetwork)

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Run:
    """The options of ``python -m training train``."""

    recipe: Path
    backbone: str | None  # pretrained weights to start from, a file or a timm tag; None if the start says enough
    folder: Path  # keeps the state of the training; a training found there is continued
    target: Path  # the checkpoint to write
    data: Path | None = None  # class folders; None for the data that SKETCH_SEARCH_DATA names
    start: Path | None = None  # a checkpoint to start from instead of the backbone
    until: int | None = None  # the step to stop after; None for the recipe's last
    words: Path | None = None  # a file of word vectors; None for the stand-in of the optional data
    device: torch.device = CPU  # where the steps are computed
    keep: Literal["last", "best"] = "last"  # the step whose network is written; the best on the validation classes
    patience: int | None = None  # evaluations without a better one after which the training ends; None for all steps

    @property
    def needed_backbone(self) -> str:
        """The backbone. Raises ModelError if none is named."""
        if self.backbone is None:
            raise ModelError("name what this recipe starts from with --backbone: a photo side, a ViT, or CLIP")
        return self.backbone

    @property
    def origin(self) -> str:
        """A note for the checkpoint that says where it comes from."""
        return f"trained by recipe {self.recipe.name} from {(self.start or Path(self.needed_backbone)).name}"


_STATE, _BEST = "state.pt", "best.pt"
# Seconds between two lines of a training that has no terminal for its bar.
_TELL_EVERY = 60


def digest(words: str, weights: Mapping[str, torch.Tensor]) -> str:
    sha256 = hashlib.sha256(words.encode())
    for name, tensor in sorted(weights.items()):
        sha256.update(name.encode())
        sha256.update(tensor.float().contiguous().numpy().tobytes())
    return sha256.hexdigest()


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
    """A training by a recipe; one that was stopped and goes on gives the weights of one that was not, up to rounding.

    network: this is trained, and moved to the device. folder: keeps state.pt, from which a training is
    continued; log.jsonl, with the losses, the learning rate, the norm of the gradients before they are clipped, seconds
    and, at times, validation figures of each step; and best.pt, the state of the best of these, if asked for.
    origin: a digest of everything that determines the state of the training; ModelError for another one.
    """

    recipe: Recipe

    def __init__(self, recipe: Recipe, network: Trained, folder: Path, origin: str, device: torch.device = CPU) -> None:
        self.recipe, self.folder, self.origin, self.device = recipe, folder, origin, device
        self.dtype = recipe.dtype_on(device)
        folder.mkdir(parents=True, exist_ok=True)
        self.state_path, self.best_path, self.log_path = folder / _STATE, folder / _BEST, folder / "log.jsonl"
        self.network: Trained = network.to(self.device).train()
        self.average: Trained = copy.deepcopy(self.network).requires_grad_(False)
        self.optimiser: torch.optim.Optimizer = self.make_optimiser()
        self.step, self.gradient = 0, 0.0
        if self.state_path.exists():
            self._restore(self.state_path)
        else:
            self.begin()

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
        part = validation.subsample(share, share)
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

    def judgement(self, figures: Mapping[str, float]) -> float:
        """Says by which of the figures on validation classes the best step is chosen."""
        return max(figures.values())

    def best(self) -> tuple[int, float] | None:
        """The step that was best on the validation classes and was kept, with its figure."""
        if not self.best_path.exists():
            return None
        kept = torch.load(self.best_path, mmap=True)
        return (kept["step"], kept["figure"]) if kept["origin"] == self.origin else None

    def take_best(self) -> None:
        """Goes back to the best step. Raises ModelError if none was kept."""
        if self.best() is None:
            raise ModelError(f"{self.folder} keeps no best step; train with --keep best")
        self._restore(self.best_path)

    def exhausted(self, patience: int | None) -> bool:
        """True if ``patience`` evaluations since the best step were no better."""
        best = self.best() if patience else None
        return best is not None and (self.step - best[0]) // self.recipe.evaluate_every >= (patience or 0)

    def notes(self, run: Run, seen: SeenClasses) -> dict[str, str]:
        """Makes the checkpoint's notes: where it comes from, and which classes it has seen, if its start says so."""
        part = f", step {self.step:,} of {self.recipe.steps:,}" if self.step < self.recipe.steps else ""
        # A backbone can be a two-sided checkpoint.
        first = run.start or (Path(run.backbone) if run.backbone and is_checkpoint(Path(run.backbone)) else None)
        before = seen_classes(first) if first else SeenClasses(frozenset())
        return {"origin": run.origin + part, **((before | seen).note() if before else {})}

    def run(self, validation: Corpus | None = None, until: int | None = None, options: Run | None = None) -> None:
        """Trains to the end, or to step ``until``. options: what is kept and logged, and how much patience there is.

        SIGINT and SIGTERM end the step under way and save the state before they act as usual; a second signal acts at
        once.
        """
        recipe = self.recipe
        last = min(until or recipe.steps, recipe.steps)
        best, patience = (options.keep == "best", options.patience) if options else (False, None)
        self._cut_log()
        bar = tqdm(total=recipe.steps, initial=self.step, desc="training", unit="step", disable=None)
        reported = time.monotonic()
        with bar, noted_signals() as noted:
            while self.step < last and not noted and not self.exhausted(patience):
                began = time.monotonic()
                losses = self.train_step()
                entry: dict[str, float | int] = {"step": self.step, "of": recipe.steps, **losses}
                entry |= {"rate": max(group["lr"] for group in self.optimiser.param_groups), "gradient": self.gradient}
                entry["seconds"] = round(time.monotonic() - began, 3)
                bar.update()
                bar.set_postfix(losses, refresh=False)
                if validation is not None and (self.step % recipe.evaluate_every == 0 or self.step == recipe.steps):
                    figures = self.figures(validation)
                    entry |= figures
                    if best and self.judgement(figures) > (self.best() or (0, -math.inf))[1]:
                        self.save(self.best_path, figure=self.judgement(figures))
                with self.log_path.open("a") as log:
                    log.write(json.dumps(entry) + "\n")
                if bar.disable and (time.monotonic() - reported >= _TELL_EVERY or self.step == last):
                    reported = time.monotonic()
                    print(", ".join(f"{name} {value:g}" for name, value in entry.items()), flush=True)
                if self.step % recipe.save_every == 0 or self.step == last or noted or self.exhausted(patience):
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
        self.gradient = round(float(nn.utils.clip_grad_norm_(self.network.parameters(), chosen.clip)), 4)
        self.optimiser.step()
        self.step += 1
        kept = min(chosen.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(value, 1 - kept)
        return {name: round(float(loss.detach()), 4) for name, loss in losses.items()}

    def save(self, path: Path | None = None, **notes: float) -> None:
        """Writes the state of the training, atomically; ``path``: elsewhere than usual."""
        parts = {name: part.state_dict() for name, part in self._parts.items()}
        with replacing(path or self.state_path) as partial:
            torch.save({"step": self.step, "origin": self.origin, **parts, **notes}, partial)

    def _restore(self, path: Path) -> None:
        kept = torch.load(path, map_location="cpu")
        if kept["origin"] != self.origin:
            remedy = "name another folder with --run, or remove this one to start again"
            raise ModelError(f"{path} belongs to another recipe, backbone, start or data; {remedy}")
        self.step = kept["step"]
        for name, part in self._parts.items():
            part.load_state_dict(kept[name])

    @property
    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {"network": self.network, "average": self.average, "optimiser": self.optimiser}

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

    def restore(*received: Any) -> None:
        noted.extend(received[:1])
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        for number in before:
            signal.signal(number, restore)
        yield noted
    finally:
        restore()


# Of a single class mAP is always 1.
_FEWEST_TO_CHOOSE_BY = 3


def check_validation(recipe: Recipe, run: Run, validation: Corpus | None) -> None:
    """Warns of too few validation classes. Raises ModelError if the best step is to be chosen by them."""
    if validation is None or recipe.fewest_classes == 1 or len(validation.shared) >= _FEWEST_TO_CHOOSE_BY:
        return
    problem = (
        f"the validation has {len(validation.shared)} of the {_FEWEST_TO_CHOOSE_BY} classes that choices need: "
        "add class folders, of which every fifth is for validation"
    )
    if run.keep == "best":
        raise ModelError(f"{problem}; or leave --keep best and --patience out")
    print(f"{problem}; the checkpoint's best method and its weights mean nothing now")


def load_start(run: Run, kind: type[Started]) -> Started | None:
    """Loads the checkpoint that a training starts from. Raises ModelError for another kind of network."""
    if run.start is None:
        return None
    network = load_network(run.start)
    if not isinstance(network, kind):
        raise ModelError(f"{run.start} holds a network of another kind ({network.kind}) than the recipe trains")
    return network.prior_replaced(None).vocabulary_replaced(None).requires_grad_(True)


def run_steps(trainer: Trainer[Trained], run: Run, validation: Corpus | None) -> bool:
    """Trains; returns whether a checkpoint is to be made of what the trainer then holds."""
    if run.keep == "best" and validation is None:
        raise ModelError('the best step is chosen on the validation classes: leave "val" out of the recipe\'s split')
    trainer.run(validation, run.until, run)
    if trainer.step < trainer.recipe.steps and not trainer.exhausted(run.patience):
        print(f"stopped at step {trainer.step} of {trainer.recipe.steps}; the same command continues from here")
        return False
    if run.keep == "best":
        trainer.take_best()
        print(f"step {trainer.step} was the best on the validation classes")
    return True


# From a recipe, the options, the training and the validation pictures: the trainer, and notes for the checkpoint.
Begin: TypeAlias = Callable[[Any, Run, Corpus, Corpus], tuple[Trainer[Any], Mapping[str, str]]]


def train_from_backbone(begin: Begin, recipe: Recipe, run: Run) -> None:
    """Trains a network, calibrates it on the validation classes, and writes the checkpoint."""
    pictures = training_corpora(run.data, recipe)
    training, validation = pictures.training, pictures.validation
    if validation is None:
        raise ModelError(f'a recipe of {recipe.title} is calibrated on the validation classes: leave "val" out')
    check_validation(recipe, run, validation)
    print(f"training on {counts(training)}; calibrated on {counts(validation)}")
    trainer, notes = begin(recipe, run, training, validation)
    if run_steps(trainer, run, validation):
        chosen_on, relevant = trainer.judged(validation, recipe.choose_share)
        ready, figures = calibrate(trainer.trained, chosen_on, trainer.dtype, recipe.methods, relevant)
        all_notes = {**trainer.notes(run, pictures.seen), **notes, "validation": json.dumps(figures)}
        save_checkpoint(ready.cpu().half(), run.target, all_notes)
        print(f"wrote {run.target}; mAP@all on validation classes: {figures}")
