"""The whole comparison: each method is trained at several rates, chosen on validation classes, and measured once."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.checkpoint import file_sha256, load_network, read_metadata, save_checkpoint
from model.datasets import Corpus, Picture, read_large_task, read_task, subsampled
from model.errors import ModelError
from model.evaluation import encode_pictures, intervals, measure, measure_instances
from model.matcher import Matcher, load
from model.network import Calibration, Modality, Tokens, from_backbone, multiplies_bf16, read_backbone
from model.papers.comparison.table import (
    Chosen,
    ComparedMethod,
    ComparisonRow,
    Figures,
    Peak,
    Point,
    Ranked,
    Retrieval,
    TrainedRate,
    all_methods,
    chosen_methods,
)
from model.papers.recipe import VALIDATION_SHARE, Budget, BudgetedRecipe, ZseRecipe, at_budget, keep_text, read_recipe
from model.papers.runs import Run, Trainer
from model.papers.trainings import read_log, read_record, train, write_record
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


def compare(request: ComparisonRequest, report: Callable[[str], object]) -> tuple[ComparisonRow, ...]:
    """Trains, chooses and measures the rows that are not done, and returns all that were asked for.

    All choices are made on the validation classes; the unseen classes are only measured, once for each chosen
    checkpoint. ``report`` gets sentences about the progress.

    Raises ModelError for an unknown method, a recipe that is missing, a folder of other settings, or missing data.
    """
    methods = chosen_methods(request.methods)
    budget = Budget(request.pictures, request.image_size)
    # First what takes no time: all recipes and the settings.
    plans = [(method, planned(method, budget, request.folder)) for method in methods]
    _check_settings(request)
    work = _Work(request, report)
    return tuple(work.row(method, trainings) for method, trainings in plans)


def _check_settings(request: ComparisonRequest) -> None:
    """Raises ModelError for a folder with rows that cannot be compared with those of this request."""
    settings = {
        "pictures": request.pictures,
        "image_size": request.image_size,
        "backbone": _identity(request.backbone),
        "words": _identity(str(request.words)) if request.words else "",
    }
    path = request.folder / "settings.json"
    keep_text(path, json.dumps(settings) + "\n", "a comparison with other settings", "--out")


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
        recipe = read_recipe(method.recipe, ZseRecipe)
        network = from_backbone(recipe.config(self.request.image_size), read_backbone(self.request.backbone))
        val = max(validation_figures(network, self.validation, VALIDATION_SHARE, recipe.dtype, recipe.methods).values())
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


# A recipe's own learning rates are multiplied by these.
FACTORS = (0.3, 1.0, 3.0)


@dataclass(frozen=True)
class Training:
    """A training at one rate.

    Attributes:
        folder: it has recipe.toml, which ``python -m model train`` takes as well, the state and the log. done.json is
            written last, with what the training was like.
        recipe: it is trained by this.
    """

    folder: Path
    recipe: BudgetedRecipe

    @property
    def last(self) -> Path:
        """The network at the end, not calibrated."""
        return self.folder / "last.safetensors"

    @property
    def peak(self) -> Path:
        """The network when it was best on the validation classes, not calibrated."""
        return self.folder / "peak.safetensors"


def planned(method: ComparedMethod, budget: Budget, folder: Path) -> tuple[Training, ...]:
    """The trainings of a method in the folder of the comparison; none for a method that is not trained.

    Raises ModelError for a recipe that is missing or cannot be used, and a budget that is too small for it.
    """
    recipes = [at_budget(method.recipe, budget, factor) for factor in FACTORS] if method.trained else []
    return tuple(Training(folder / method.name / f"{recipe.rate:g}", recipe) for recipe in recipes)


def trained(
    training: Training,
    backbone: str,
    words: Path | None,
    siblings: tuple[Training, ...],
    report: Callable[[str], object],
) -> TrainedRate:
    """Trains, unless it is done; a training that was stopped goes on.

    siblings: all trainings of the method, of which an earlier one may have asked the teacher already.
    """
    if (found := read_record(TrainedRate, training.folder / "done.json")) is not None:
        return found
    training.folder.mkdir(parents=True, exist_ok=True)
    recipe = training.folder / "recipe.toml"
    recipe.write_text(training.recipe.text, encoding="utf-8")
    _share_teacher(training, siblings)

    def keep(trainer: Trainer[Any], figures: Mapping[str, float]) -> None:
        value, methods = _figure(figures), trainer.recipe.methods
        paths = [training.last] if trainer.step == trainer.recipe.steps else []
        if not training.peak.exists() or value > float(read_metadata(training.peak)["val"]):
            paths.append(training.peak)
        for path in paths:
            # That is a copy.
            network = trainer.trained.with_calibration(Calibration(methods, methods[0]))
            save_checkpoint(network.half(), path, {"val": repr(value)})

    train(Run(recipe, backbone, training.folder, None, words=words), report, keep)
    entries = read_log(training.folder)
    curve = tuple(
        Point(entry["step"] * training.recipe.pictures // entry["of"], _figure(entry))
        for entry in entries
        if any(name.startswith("val_") for name in entry)
    )
    result = TrainedRate(training.recipe.rate, round(sum(entry["seconds"] for entry in entries), 1), curve)
    write_record(training.folder / "done.json", result)
    (training.folder / "state.safetensors").unlink(missing_ok=True)
    return result


def forget_networks(trainings: tuple[Training, ...]) -> None:
    """Deletes what only the choice among the trainings needed; recipes, logs and curves stay."""
    for training in trainings:
        for path in training.folder.glob("*.safetensors"):
            path.unlink()


def _figure(figures: Mapping[str, float]) -> float:
    """The highest mAP@all of a validation."""
    return max(value for name, value in figures.items() if name.startswith("val_"))


def _share_teacher(training: Training, siblings: tuple[Training, ...]) -> None:
    """Lets a training have what the pretrained ViT said of the photos in another one: it says the same to all."""
    asked = next((path for sibling in siblings for path in sibling.folder.glob("teacher-*.safetensors")), None)
    if asked is not None:
        # Where files cannot be linked, it is asked again.
        with suppress(OSError):
            os.link(asked, training.folder / asked.name)


# Every n-th query is asked of the gallery of everything, which takes long by a relation network.
EVERYTHING_EVERY = 4
_TIMED_PHOTOS = 32
_REPEATS = 5
# An index keeps a byte a number and four for the scale of each token; [Ret] is kept in float32, too.
_SCALE_BYTES = _FLOAT_BYTES = 4


@dataclass(frozen=True)
class MeasuredPictures:
    """The queries and galleries of all measurements. None of these classes is trained on or chosen by.

    Attributes:
        unseen: unseen classes alone.
        everything: the same classes in a gallery with photos of trained classes and ordinary photos.
        instances: sketches that were drawn from a photo, and the photos of unseen classes.
    """

    unseen: Corpus
    everything: Corpus
    instances: Corpus


def read_pictures() -> MeasuredPictures:
    """The pictures of the optional data. Raises ModelError where some are missing."""
    unseen = read_task("zero-shot", "unseen").corpus
    large = read_large_task("everything", "unseen", "train").corpus
    asked = set(unseen.labels)
    sketches = tuple(sketch for sketch in large.sketches if sketch.label in asked)
    return MeasuredPictures(
        unseen, Corpus(sketches[::EVERYTHING_EVERY], large.photos), read_task("fine-grained", "unseen").corpus
    )


def measure_checkpoint(path: Path, pictures: MeasuredPictures) -> Figures:
    """All figures of a calibrated checkpoint on this machine, by its best method."""
    matcher = load(path)
    unseen, everything, instances = pictures.unseen, pictures.everything, pictures.instances
    sketches = _Encoded(matcher, unseen.sketches + everything.sketches + instances.sketches, "sketch")
    photos = _Encoded(matcher, unseen.photos + everything.photos + instances.photos, "photo")
    by_instance = measure_instances(instances, {"plain": _within_classes(matcher, instances, sketches, photos)})
    gallery = photos.of(unseen.photos)
    return Figures(
        method=matcher.best_method,
        unseen=_ranked(matcher, unseen, sketches, photos),
        everything=_ranked(matcher, everything, sketches, photos),
        instances=intervals(by_instance.per_query, "queries")["plain"]["acc_1"],
        chance=by_instance.chance["acc_1"],
        instance_queries=by_instance.queries,
        photo_ms=_photo_ms(matcher, unseen.photos[:_TIMED_PHOTOS]),
        query_ms=_query_ms(matcher, unseen.sketches[0], gallery),
        threads=torch.get_num_threads(),
        photo_bytes=_photo_bytes(matcher),
        parameters=sum(parameter.numel() for parameter in matcher.network.parameters()),
        sha256=matcher.checkpoint_sha256,
    )


def measure_peak(path: Path, rate: float, at: Point, pictures: MeasuredPictures) -> Peak:
    """The figures of unseen classes alone of a calibrated checkpoint, by its best method.

    rate, at: of its training, and where on its curve the checkpoint is.
    """
    matcher, unseen = load(path), pictures.unseen
    encoded = _Encoded(matcher, unseen.sketches, "sketch"), _Encoded(matcher, unseen.photos, "photo")
    return Peak(rate, at, matcher.best_method, _ranked(matcher, unseen, *encoded), matcher.checkpoint_sha256)


class _Encoded:
    """The tokens of pictures, each of which is encoded once."""

    def __init__(self, matcher: Matcher, pictures: tuple[Picture, ...], modality: Modality) -> None:
        different = {picture.path: picture for picture in pictures}
        self._rows = {path: row for row, path in enumerate(different)}
        self._tokens = encode_pictures(matcher, tuple(different.values()), modality)

    def of(self, pictures: tuple[Picture, ...]) -> Tokens:
        return self._tokens[[self._rows[picture.path] for picture in pictures]]


def _ranked(matcher: Matcher, corpus: Corpus, sketches: _Encoded, photos: _Encoded) -> Ranked:
    gallery = photos.of(corpus.photos)
    scores = matcher.scores(sketches.of(corpus.sketches), gallery)
    matrices = {"plain": scores.numpy(), "diffused": matcher.diffuse(scores, gallery.ret).numpy()}
    found = intervals(measure(corpus, matrices).per_query, "queries")
    plain, diffused = (Retrieval(row["map_all"], row["precision_100"]) for row in (found["plain"], found["diffused"]))
    return Ranked(len(corpus.sketches), len(corpus.photos), plain, diffused)


def _within_classes(matcher: Matcher, corpus: Corpus, sketches: _Encoded, photos: _Encoded) -> NDArray[np.float32]:
    """(sketches, photos): the scores of pairs of one class; those of all others, which nobody reads, are lowest."""
    matrix = np.full((len(corpus.sketches), len(corpus.photos)), -np.inf, np.float32)
    for label in sorted({sketch.label for sketch in corpus.sketches}):
        rows = [row for row, sketch in enumerate(corpus.sketches) if sketch.label == label]
        columns = [column for column, photo in enumerate(corpus.photos) if photo.label == label]
        asked, shown = tuple(corpus.sketches[row] for row in rows), tuple(corpus.photos[column] for column in columns)
        matrix[np.ix_(rows, columns)] = matcher.scores(sketches.of(asked), photos.of(shown)).numpy()
    return matrix


def _photo_ms(matcher: Matcher, photos: tuple[Picture, ...]) -> float:
    images = torch.stack([matcher.prepare(matcher.open(photo.path, "photo"), "photo") for photo in photos])
    return _milliseconds(lambda: matcher.encode(images, "photo")) / len(photos)


def _query_ms(matcher: Matcher, sketch: Picture, gallery: Tokens) -> float:
    image = matcher.prepare(matcher.open(sketch.path, "sketch"), "sketch")[None]
    # A server has projected its photos before anybody asks.
    photos = matcher.project(gallery) if _compares_tokens(matcher) else gallery
    return _milliseconds(lambda: matcher.scores(matcher.encode(image, "sketch"), photos))


def _milliseconds(work: Callable[[], object]) -> float:
    """The median of some repeats, after one that warms up."""
    work()
    seconds = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds)


def _photo_bytes(matcher: Matcher) -> int:
    width, tokens = matcher.config.width, matcher.token_count("photo")
    ret = _FLOAT_BYTES * width
    return ret + (tokens * (width + _SCALE_BYTES) + tokens - 1 if _compares_tokens(matcher) else 0)


def _compares_tokens(matcher: Matcher) -> bool:
    return matcher.best_method != "ret"
