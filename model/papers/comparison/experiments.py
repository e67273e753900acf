"""The experiments of Sketch-an-Anchor's paper: each trains or measures, and gives rows, a table and a plot.

A row that is done is kept as JSON in the experiment's folder, and a training that was stopped goes on.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from model.checkpoint import file_sha256
from model.datasets import Corpus, Picture, read_task, some_of_each
from model.errors import ModelError
from model.evaluation import draw_lines, encode_pictures, new_figure
from model.matcher import Matcher, load
from model.metrics import category_metrics
from model.network import Tokens, anchor_network_from, read_backbone
from model.papers.pictures import training_corpora
from model.papers.recipe import AnchorRecipe, keep_text, read_recipe, recipe_file
from model.papers.runs import Run
from model.papers.trainings import (
    Outcome,
    TrainedRow,
    markdown,
    read_log,
    read_record,
    train,
    trained_row,
    with_interval,
    write_record,
)

Measured = Literal["zero-shot", "generalised"]
# matplotlib's colours of a first and a second thing.
FIRST, SECOND = "C0", "C1"


@dataclass(frozen=True)
class ExperimentRequest:
    """An experiment: where its trainings start, and on which pictures they are measured.

    Attributes:
        recipe: of Sketch-an-Anchor; each training changes it a little.
        backbone: pretrained weights that all trainings start from.
        folder: keeps trainings, checkpoints and rows.
        data, words: as for a training.
        split: the classes that are measured on; None for "unseen" of the optional data or, with ``data``, for the
            classes that no training on it sees.
        steps: of each training; None for the recipe's.
    """

    recipe: Path
    backbone: str
    folder: Path
    data: Path | None = None
    words: Path | None = None
    split: str | None = None
    steps: int | None = None

    def run(self, name: str, changes: Mapping[str, Any]) -> Run:
        """Writes the recipe with some changes to FOLDER/NAME.toml; the checkpoint is FOLDER/NAME.safetensors.

        changes: keys of a recipe; dicts are tables. Raises ModelError where another one is there, and for a recipe of
        another method.
        """
        self.read_recipe()
        changes = {"base": str(recipe_file(self.recipe).absolute()), **changes}
        changes = changes if self.steps is None else {"steps": self.steps, **changes}
        # A JSON string, number or truth value is one of TOML, too.
        lines = [f"{k} = {json.dumps(v, ensure_ascii=False)}" for k, v in changes.items() if not isinstance(v, dict)]
        for key, table in changes.items():
            if isinstance(table, dict):
                lines += [f"[{key}]", *(f"{name} = {json.dumps(value)}" for name, value in table.items())]
        path = self.folder / f"{name}.toml"
        keep_text(path, "\n".join(lines) + "\n", "another experiment")
        target = self.folder / f"{name}.safetensors"
        return Run(path, self.backbone, self.folder / name, target, self.data, words=self.words)

    def read_recipe(self) -> AnchorRecipe:
        """Reads the recipe as it is. Raises ModelError for one of another method."""
        return read_recipe(self.recipe, AnchorRecipe)

    def measured_pictures(self, protocol: Measured = "zero-shot") -> Corpus:
        """The queries and the gallery of the classes that are measured on."""
        if self.data is None:
            return read_task(protocol, self.split or "unseen").corpus
        if self.split is not None:
            raise ModelError("--split names classes of the optional data; leave it or --data out")
        whole = read_task("generalised", data=self.data).corpus
        return whole if protocol == "generalised" else whole.of({sketch.label for sketch in whole.sketches})


# Section 4.3, Fig. 4: how fast a training gets good, at some learning rates that stay as they are.
# The recipe's rate is multiplied by these where no rates are named.
FACTORS = (1 / 3, 1.0, 3.0)
# Measurements of a training.
_MEASURED = 20


@dataclass(frozen=True)
class RatePoint:
    """A training at one time. epochs: photos it has seen over those that there are. map_all: on validation classes."""

    step: int
    epochs: float
    map_all: float


@dataclass(frozen=True)
class RateRow:
    """The training at one rate."""

    rate: float
    seed: int
    points: tuple[RatePoint, ...]


def compare_rates(request: ExperimentRequest, rates: Sequence[float], report: Callable[[str], object]) -> Outcome:
    """Trains at each rate, without warm-up and decay, and measures the network on the way.

    rates: none for a third of the recipe's, the recipe's, and three times that.
    """
    own = request.read_recipe().optimiser.rate
    rates = rates or [float(f"{own * factor:.3g}") for factor in FACTORS]
    rows = [_rate_row(request, rate, report) for rate in rates]
    titles = ("learning rate", "seed", "best mAP@all on validation classes", "after", "last mAP@all", "after")
    lines = []
    for row in rows:
        best = max(row.points, key=lambda point: point.map_all)
        cells = [(f"{at.map_all:.3f}", f"{at.step:,} steps, {at.epochs:.2f} epochs") for at in (best, row.points[-1])]
        lines.append((f"{row.rate:g}", str(row.seed), *cells[0], *cells[1]))
    series = {f"{row.rate:g}": [(point.step, point.map_all) for point in row.points] for row in rows}
    draw = partial(draw_lines, series, "step", "mAP@all on validation classes")
    return Outcome(rows, markdown(titles, lines), draw)


def _rate_row(request: ExperimentRequest, rate: float, report: Callable[[str], object]) -> RateRow:
    name = f"rate-{rate:g}"
    steps = request.steps or request.read_recipe().steps
    constant = {"rate": rate, "last_rate": rate, "warmup": 1}
    run = request.run(name, {"evaluate_every": max(1, steps // _MEASURED), "optimiser": constant})
    path = request.folder / f"{name}.json"
    if (found := read_record(RateRow, path)) is not None:
        return found
    report(f"learning rate {rate:g}:")
    recipe = read_recipe(run.recipe, AnchorRecipe)
    photos = len(training_corpora(request.data, recipe).training.photos)
    train(dataclasses.replace(run, target=None), report)
    points = tuple(
        RatePoint(entry["step"], entry["step"] * recipe.batch / photos, entry["val_ret"])
        for entry in read_log(run.folder)
        if "val_ret" in entry
    )
    row = RateRow(rate, recipe.seed, points)
    write_record(path, row)
    return row


# Fig. 1: what the training does to the space of vectors.
# The paper draws as many classes; of each there are so many sketches and photos.
_CLASSES, _OF_EACH = 10, 20
_SEED = 0


@dataclass(frozen=True)
class SpacePoint:
    """Where t-SNE puts a picture."""

    x: float
    y: float
    label: str
    sketch: bool


@dataclass(frozen=True)
class SpaceRow:
    """The vectors of one network.

    Attributes:
        name: "before" or "after" the training. network: its name. checkpoint_sha256: "" before the training.
        sketches, photos: how many were measured.
        photo_photo, sketch_sketch, sketch_photo: mAP@all of finding the second by the first; a picture is not asked to
            find itself.
        seed: of t-SNE. points: some pictures of a few classes.
    """

    name: str
    network: str
    checkpoint_sha256: str
    sketches: int
    photos: int
    photo_photo: float
    sketch_sketch: float
    sketch_photo: float
    seed: int
    points: tuple[SpacePoint, ...]


def compare_spaces(request: ExperimentRequest, weights: Path | None, report: Callable[[str], object]) -> Outcome:
    """Measures the pretrained ViT and the network after the training, on the same pictures.

    weights: a checkpoint that is trained already, of any network; None trains the recipe.
    """
    corpus = request.measured_pictures()
    if weights is None:
        run = request.run("trained", {})
        weights = request.folder / "trained.safetensors"
        if not weights.exists():
            train(run, report)
    request.folder.mkdir(parents=True, exist_ok=True)
    trained, sha256 = weights, file_sha256(weights)
    rows = (
        _space_row(request, "before", "", corpus, lambda: _untrained(request), report),
        _space_row(request, "after", sha256, corpus, lambda: load(trained), report),
    )
    titles = ("training", "network", "photos by a photo", "sketches by a sketch", "photos by a sketch")
    lines = [
        (row.name, row.network, *(f"{value:.3f}" for value in (row.photo_photo, row.sketch_sketch, row.sketch_photo)))
        for row in rows
    ]
    counted = f"{rows[0].sketches:,} sketches, {rows[0].photos:,} photos; mAP@all; t-SNE with seed {rows[0].seed}."
    return Outcome(rows, f"{counted}\n\n{markdown(titles, lines)}", partial(_draw_spaces, rows))


def _draw_spaces(rows: Sequence[SpaceRow], picture: Path) -> None:
    """Draws a map of each network's vectors, a colour for each class, and mAP@all as bars."""
    figure = new_figure(12, 4.5)
    *maps, bars = figure.subplots(1, len(rows) + 1)
    labels = sorted({point.label for row in rows for point in row.points})
    for axes, row in zip(maps, rows, strict=True):
        for sketch, marker in ((False, "."), (True, "^")):
            for number, label in enumerate(labels):
                found = [point for point in row.points if point.sketch == sketch and point.label == label]
                place = [point.x for point in found], [point.y for point in found]
                axes.scatter(*place, marker=marker, s=14, color=f"C{number % 10}", label=label if sketch else None)
        axes.set(title=f"{row.name}: {row.network}", xticks=[], yticks=[], xlabel="dots: photos, triangles: sketches")
    maps[-1].legend(fontsize=6)
    kinds = ("photo_photo", "sketch_sketch", "sketch_photo")
    for number, (row, colour) in enumerate(zip(rows, (FIRST, SECOND), strict=True)):
        places = np.arange(len(kinds)) + 0.4 * number
        bars.bar(places, [getattr(row, kind) for kind in kinds], 0.4, color=colour, label=row.name)
    bars.set_xticks(np.arange(len(kinds)) + 0.2, ["photo to photo", "sketch to sketch", "sketch to photo"])
    bars.set(ylabel="mAP@all")
    bars.legend()
    figure.savefig(picture)


def _untrained(request: ExperimentRequest) -> Matcher:
    """The pretrained ViT, whose class token is the vector."""
    recipe = request.read_recipe()
    config = dataclasses.replace(recipe.config, name=recipe.backbone, anchors=(), average="backbone")
    network = anchor_network_from(config, read_backbone(request.backbone)).requires_grad_(False)
    return Matcher(network, "")


def _space_row(
    request: ExperimentRequest,
    name: str,
    sha256: str,
    corpus: Corpus,
    network: Callable[[], Matcher],
    report: Callable[[str], object],
) -> SpaceRow:
    path = request.folder / f"{name}.json"
    found = read_record(SpaceRow, path)
    counts = len(corpus.sketches), len(corpus.photos)
    if found is not None and (found.checkpoint_sha256, found.sketches, found.photos) == (sha256, *counts):
        return found
    report(f"measuring {name} the training")
    matcher = network()
    sketches = encode_pictures(matcher, corpus.sketches, "sketch")
    photos = encode_pictures(matcher, corpus.photos, "photo")
    of_sketches, of_photos = (np.array([p.label for p in half]) for half in (corpus.sketches, corpus.photos))
    row = SpaceRow(
        name,
        matcher.config.name,
        sha256,
        *counts,
        photo_photo=_within(matcher, photos, of_photos),
        sketch_sketch=_within(matcher, sketches, of_sketches),
        sketch_photo=category_metrics(
            -matcher.ret_distances(sketches, photos).numpy(), of_sketches[:, None] == of_photos
        ).map_all,
        seed=_SEED,
        points=_points(corpus, sketches, photos),
    )
    write_record(path, row)
    return row


def _within(matcher: Matcher, tokens: Tokens, labels: NDArray[np.str_]) -> float:
    """mAP@all of each picture among all others."""
    scores, relevant = -matcher.ret_distances(tokens, tokens).numpy(), labels[:, None] == labels
    # The picture itself comes last, where it is neither found nor in the way.
    np.fill_diagonal(scores, -np.inf)
    np.fill_diagonal(relevant, False)
    return category_metrics(scores, relevant).map_all


def _points(corpus: Corpus, sketches: Tokens, photos: Tokens) -> tuple[SpacePoint, ...]:
    """t-SNE of some pictures' vectors, by their cosines; sketches and photos together."""
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise ModelError("t-SNE needs scikit-learn: pip install 'sketch-search[train]'") from error
    labels = sorted({p.label for p in corpus.sketches} & {p.label for p in corpus.photos})
    chosen = labels[:: max(1, len(labels) // _CLASSES)][:_CLASSES]
    shown: list[tuple[Picture, bool]] = []
    vectors = []
    for pictures, tokens, sketch in ((corpus.sketches, sketches, True), (corpus.photos, photos, False)):
        some = set(some_of_each([p for p in pictures if p.label in chosen], _OF_EACH))
        rows = [row for row, picture in enumerate(pictures) if picture in some]
        shown += [(pictures[row], sketch) for row in rows]
        vectors.append(F.normalize(tokens.ret[rows], dim=1))
    together = torch.cat(vectors).numpy()
    perplexity = min(30.0, (len(together) - 1) / 3)
    places = TSNE(init="pca", perplexity=perplexity, random_state=_SEED).fit_transform(together)
    return tuple(
        SpacePoint(round(float(x), 3), round(float(y), 3), picture.label, sketch)
        for (x, y), (picture, sketch) in zip(places, shown, strict=True)
    )


# Section 4.5, Fig. 6: training on the few photos nearest to the visual anchor of each class, or farthest from it.
_ALL = "all"
_SIDES = ("nearest", "farthest")


def compare_nearest(request: ExperimentRequest, counts: Sequence[int], report: Callable[[str], object]) -> Outcome:
    """Trains on all photos, then on so many nearest and farthest ones of each class, with all sketches each time.

    A class that has fewer photos gives all.
    """
    corpus = request.measured_pictures()
    trials: dict[str, dict[str, Any]] = {_ALL: {}} | {
        f"{side}-{count}": {"photos": {"count": count, "farthest": side == "farthest"}}
        for count in counts
        for side in _SIDES
    }
    rows = [trained_row(request.run(name, changes), corpus, report) for name, changes in trials.items()]
    titles = ("photos of each class", "seed", "mAP@all", "Prec@100")
    table = markdown(titles, [(row.name.replace("-", " "), *_figures(row)) for row in rows])
    values = {row.name: row.figures["ret"]["map_all"].value for row in rows}
    series = {
        side: [(float(name.split("-")[1]), value) for name, value in values.items() if name.startswith(side)]
        for side in _SIDES
    }
    level = (_ALL, values[_ALL])
    draw = partial(draw_lines, series, titles[0], "mAP@all", logarithmic=True, level=level)
    return Outcome(rows, table, draw)


def _figures(row: TrainedRow) -> tuple[str, str, str]:
    """The seed of a training, mAP@all with its interval, and Prec@100, for a table."""
    found = row.figures["ret"]
    return str(row.seed), with_interval(found["map_all"]), f"{found['precision_100'].value:.3f}"


# Sections 4.2 and 4.4: the training several times, each with another seed, zero-shot or generalised.
_FIGURES = {"map_all": "mAP@all", "precision_100": "Prec@100"}


def repeat(request: ExperimentRequest, count: int, protocol: Measured, report: Callable[[str], object]) -> Outcome:
    """Trains and measures ``count`` times, with the recipe's seed and those that follow.

    For the generalised protocol the training leaves out a fifth of the photos of each class, which the gallery shows.
    """
    corpus = request.measured_pictures(protocol)
    first = request.read_recipe().seed
    rows = []
    for seed in range(first, first + count):
        run = request.run(f"{protocol}-seed-{seed}", {"seed": seed, "hold_out": protocol == "generalised"})
        rows.append(trained_row(run, corpus, report))
    # The mean of all, and their standard deviation, the square root of the variance.
    lines: list[tuple[str, ...]] = [_figures(row) for row in rows]
    values = [[row.figures["ret"][figure].value for row in rows] for figure in _FIGURES]
    lines.append(("mean", *(f"{statistics.mean(of_figure):.3f}" for of_figure in values)))
    if len(rows) > 1:
        lines.append(("standard deviation", *(f"{statistics.stdev(of_figure):.3f}" for of_figure in values)))
    return Outcome(rows, markdown(("seed", *_FIGURES.values()), lines), partial(_draw_repeats, rows))


def _draw_repeats(rows: Sequence[TrainedRow], picture: Path) -> None:
    """Draws a point for each training, and the mean with the standard deviation on both sides of it."""
    figure = new_figure(4, 4.5)
    axes = figure.subplots()
    for place, name in enumerate(_FIGURES):
        values = [row.figures["ret"][name].value for row in rows]
        axes.plot([place] * len(values), values, "o", alpha=0.5)
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        axes.errorbar([place + 0.15], [statistics.mean(values)], [spread], fmt="D", capsize=4, color="black")
    axes.set(xlim=(-0.5, len(_FIGURES) - 0.5), title=f"{len(rows)} trainings: mean, standard deviation")
    axes.set_xticks(range(len(_FIGURES)), list(_FIGURES.values()))
    axes.grid(alpha=0.3)
    figure.savefig(picture)
