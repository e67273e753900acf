"""The whole comparison: each method is trained at several rates, chosen on validation classes, and measured once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from model.checkpoint import file_sha256, load_network, save_checkpoint
from model.datasets import Corpus, read_task, subsampled
from model.errors import ModelError
from model.network import from_backbone, multiplies_bf16, read_backbone
from model.papers.budget import VALIDATION_SHARE, Budget
from model.papers.comparison.measuring import MeasuredPictures, measure_checkpoint, measure_peak, read_pictures
from model.papers.comparison.methods import ComparedMethod, all_methods, chosen_methods
from model.papers.comparison.rows import Chosen, ComparisonRow, Point, TrainedRate, read_record, write_record
from model.papers.comparison.trainings import Training, forget_networks, planned, trained
from model.papers.recipe import read_recipe
from model.terminal import expanded
from model.training import calibrated, validation_figures

# Fusion weight and diffusion threshold are chosen on every n-th of them.
CALIBRATION_SHARE = 2


@dataclass(frozen=True)
class ComparisonRequest:
    """The options of ``python -m model compare``.

    Attributes:
        methods: names of rows; empty for all.
        backbone: pretrained weights that all start from, a file or a timm tag.
        folder: NAME.json and NAME.safetensors of each row that is done, NAME-peak.safetensors, NAME/ for its trainings,
            and NAME.measured.json of a checkpoint whose row is not done. What is there is not done again.
        pictures: the budget of each training.
        image_size: side of the pictures in pixels.
        words: a file of word vectors, for methods that use some; None for the stand-in of the optional data.
    """

    methods: tuple[str, ...]
    backbone: str
    folder: Path
    pictures: int
    image_size: int
    words: Path | None = None


@dataclass(frozen=True)
class ComparisonSettings:
    """What all rows of a folder have in common, so that rows which cannot be compared do not meet.

    Attributes:
        backbone: the SHA-256 of its file, or the tag.
        words: the SHA-256 of the file of word vectors; "" for the stand-in.
    """

    pictures: int
    image_size: int
    backbone: str
    words: str


def compare(request: ComparisonRequest, report: Callable[[str], object]) -> tuple[ComparisonRow, ...]:
    """Trains, chooses and measures the rows that are not done, and returns all that were asked for.

    All choices are made on the validation classes; the unseen classes are only measured, once for each chosen
    checkpoint. ``report`` gets sentences about the progress.

    Raises ModelError for an unknown method, a recipe that is missing, a folder of other settings, or missing data.
    """
    methods = chosen_methods(request.methods)
    budget = Budget(request.pictures, request.image_size, evaluate_share=VALIDATION_SHARE)
    # First what takes no time: all recipes and the settings.
    plans = [(method, planned(method, budget, request.folder)) for method in methods]
    _check_settings(request)
    work = _Work(request, report)
    return tuple(work.row(method, trainings) for method, trainings in plans)


def _check_settings(request: ComparisonRequest) -> None:
    settings = ComparisonSettings(
        request.pictures,
        request.image_size,
        _identity(request.backbone),
        _identity(str(request.words)) if request.words else "",
    )
    request.folder.mkdir(parents=True, exist_ok=True)
    path = request.folder / "settings.json"
    found = read_record(ComparisonSettings, path)
    if found is None:
        write_record(path, settings)
    elif found != settings:
        raise ModelError(
            f"{request.folder} holds a comparison with other settings ({found}); name another folder with --out"
        )


def _identity(file: str) -> str:
    path = expanded(file)
    return file_sha256(path) if path.is_file() else file


class _Work:
    """Makes the rows, one after the other; pictures are read when they are first needed."""

    def __init__(self, request: ComparisonRequest, report: Callable[[str], object]) -> None:
        self.request, self.report = request, report

    @cached_property
    def validation(self) -> Corpus:
        return read_task("zero-shot", "val").corpus

    @cached_property
    def pictures(self) -> MeasuredPictures:
        return read_pictures()

    def row(self, method: ComparedMethod, trainings: tuple[Training, ...]) -> ComparisonRow:
        path = self.request.folder / f"{method.name}.json"
        if (found := read_record(ComparisonRow, path)) is not None:
            return found
        row = self._trained(method, trainings) if method.trained else self._untrained(method)
        write_record(path, row)
        forget_networks(trainings)
        self._measured(method.name).unlink(missing_ok=True)
        return row

    def _trained(self, method: ComparedMethod, trainings: tuple[Training, ...]) -> ComparisonRow:
        rates = []
        for number, training in enumerate(trainings, 1):
            self.report(f"{method.name}, rate {training.recipe.rate:g} ({number} of {len(trainings)}):")
            rates.append(trained(training, self.request.backbone, self.request.words, trainings, self.report))
        ends = [(rate.curve[-1].val, number) for number, rate in enumerate(rates)]
        best = max(ends)[1]
        final = self._chosen(method.name, trainings[best].last, rates[best].rate, rates[best].curve[-1])
        summit, where = highest(rates)
        peak = None
        if where.val > final.at.val:
            target = self._calibrated(f"{method.name}-peak", trainings[summit].peak, where)
            peak = measure_peak(target, rates[summit].rate, where, self.pictures)
        return ComparisonRow(method.name, method.title, self.request.image_size, tuple(rates), final, peak)

    def _chosen(self, name: str, network: Path, rate: float | None, at: Point) -> Chosen:
        """All figures of a network as it is at the end.

        They are kept until the row is done: to compare all pairs of tokens can take an hour.
        """
        measured = self._measured(name)
        if (found := read_record(Chosen, measured)) is not None:
            return found
        chosen = Chosen(rate, at, measure_checkpoint(self._calibrated(name, network, at), self.pictures))
        write_record(measured, chosen)
        return chosen

    def _measured(self, name: str) -> Path:
        return self.request.folder / f"{name}.measured.json"

    def _calibrated(self, name: str, network: Path, at: Point) -> Path:
        """Calibrates a network on the validation classes; returns its checkpoint."""
        self.report(f"{name}: choosing on the validation classes, measuring on the unseen ones")
        target = self.request.folder / f"{name}.safetensors"
        loaded = load_network(network)
        some = subsampled(self.validation, CALIBRATION_SHARE, CALIBRATION_SHARE)
        dtype = torch.bfloat16 if multiplies_bf16() else torch.float32
        ready, _ = calibrated(loaded, some, dtype, loaded.calibration.methods)
        save_checkpoint(ready.half(), target, {"origin": f"{name} of a comparison, {at.pictures:,} pictures"})
        return target

    def _untrained(self, method: ComparedMethod) -> ComparisonRow:
        recipe = dataclasses.replace(read_recipe(method.recipe), evaluate_share=VALIDATION_SHARE)
        network = from_backbone(recipe.config(self.request.image_size), read_backbone(self.request.backbone))
        val = max(validation_figures(network, recipe, self.validation).values())
        start = self.request.folder / f"{method.name}-start.safetensors"
        save_checkpoint(network, start)
        final = self._chosen(method.name, start, None, Point(0, val))
        start.unlink()
        return ComparisonRow(method.name, method.title, self.request.image_size, (), final, None)


def finished_rows(folder: Path) -> tuple[ComparisonRow, ...]:
    """The rows that a comparison has finished, in the order of the table. Raises ModelError where there are none."""
    found = (read_record(ComparisonRow, folder / f"{method.name}.json") for method in all_methods())
    rows = tuple(row for row in found if row is not None)
    if not rows:
        raise ModelError(f"{folder} holds no finished row of a comparison; sketch-search model compare makes some")
    return rows


def highest(rates: Sequence[TrainedRate]) -> tuple[int, Point]:
    """The training with the highest point of all curves, and that point; of equal ones the first."""
    points = [(number, point) for number, rate in enumerate(rates) for point in rate.curve]
    return max(points, key=lambda found: found[1].val)
