"""A table of all methods: each is trained on as many pictures, at a rate chosen on the validation classes."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from model.checkpoint import file_sha256, read_metadata, save_checkpoint
from model.datasets import Corpus, read_large_task, read_task, subsampled
from model.errors import ModelError
from model.evaluation import Interval, bootstrap, intervals, measure, measure_instances, score_matrices
from model.matcher import Matcher, load
from model.network import from_backbone, read_backbone
from model.papers.recipe import ZseRecipe, read_recipe
from model.papers.runs import Run
from model.papers.trainings import train
from model.terminal import expanded
from model.training import calibrated

# A recipe's own learning rates are multiplied by these.
FACTORS = (0.3, 1.0, 3.0)
# A training at a budget is measured so often, on every n-th validation query and photo, and saves its state so often.
VALIDATIONS, VALIDATION_SHARE, SAVES = 5, 4, 8
# The warm-up takes this share of the steps at most.
MOST_WARMUP = 0.2
# Every n-th query is asked of the gallery of everything, which takes long by a relation network.
EVERYTHING_EVERY = 4


@dataclass(frozen=True)
class ComparedMethod:
    """One row: its name on the command line, its title in the table, and the name of its recipe.

    ``trained`` is False for a network that is measured as it starts.
    """

    name: str
    title: str
    recipe: Path
    trained: bool = True


METHODS = (
    ComparedMethod("untrained", "ViT-Ret, not trained", Path("comparison/vit-ret"), trained=False),
    ComparedMethod("vit-ret", "ViT-Ret: triplets", Path("comparison/vit-ret")),
    ComparedMethod("vit-mcc", "ViT-Ret: triplets and MCC", Path("comparison/vit-mcc")),
    ComparedMethod("zse-paper", "ZSE: the paper's network and losses", Path("comparison/zse-paper")),
    ComparedMethod("zse", "ZSE: best matches, losses over batches", Path("comparison/zse")),
    ComparedMethod("anchor-baseline", "Sketch-an-Anchor: baseline", Path("sketch-an-anchor/baseline")),
    ComparedMethod("anchor-whole", "Sketch-an-Anchor: whole", Path("sketch-an-anchor/whole")),
    ComparedMethod("clip-at", "CLIP-AT: prompts and LayerNorms", Path("comparison/clip-at")),
)


@dataclass(frozen=True)
class ComparisonRequest:
    """The options of ``python -m model compare``.

    Attributes:
        methods: names of rows; empty for all.
        backbone: pretrained weights that all start from, a file or a timm tag.
        folder: NAME.json of each row that is done, and NAME/ for its trainings. What is there is not done again.
        pictures: the budget of each training, repeats counted.
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
class Retrieval:
    """Category retrieval: mAP@all by the best method, before and after diffusion, and Prec@100 before it."""

    queries: int
    photos: int
    map_all: Interval
    diffused: Interval
    precision_100: Interval


@dataclass(frozen=True)
class ComparisonRow:
    """The figures of one checkpoint. Nothing was chosen by them.

    Attributes:
        name, title: of the method. method: by which the network scores best on the validation classes.
        factor: of the recipe's rates; None for a network that was not trained.
        pictures: how many it was trained on.
        validation: mAP@all on the validation classes.
        unseen: unseen classes alone.
        everything: the same in a gallery with photos of trained classes and ordinary photos.
        instances: acc@1, finding the photo that a sketch was drawn from among those of its class.
        parameters: how many numbers the checkpoint holds. sha256: of the checkpoint.
    """

    name: str
    title: str
    method: str
    factor: float | None
    pictures: int
    validation: float
    unseen: Retrieval
    everything: Retrieval
    instances: Interval
    parameters: int
    sha256: str


def compare(request: ComparisonRequest, report: Callable[[str], object]) -> tuple[ComparisonRow, ...]:
    """Trains, chooses and measures the rows that are not done, and returns all that were asked for.

    Raises ModelError for an unknown method, a folder of other settings, a budget below one step, or missing data.
    """
    known = [method.name for method in METHODS]
    if unknown := sorted(set(request.methods) - set(known)):
        raise ModelError(f"there is no method {unknown[0]!r} to compare; choose among {', '.join(known)}")
    chosen = [method for method in METHODS if not request.methods or method.name in request.methods]
    # First what takes no time.
    texts = {method: [budgeted(method.recipe, request, factor) for factor in FACTORS] for method in chosen}
    _keep_settings(request)
    return tuple(_row(method, texts[method], request, report) for method in chosen)


def budgeted(recipe: Path, request: ComparisonRequest, factor: float) -> str:
    """The TOML of a recipe that is cut to the budget, with its learning rates multiplied by ``factor``.

    Raises ModelError for a budget below one step.
    """
    first = read_recipe(recipe)
    each = first.pictures // first.steps
    steps = request.pictures // each
    if not steps:
        raise ModelError(f"a step of {recipe} sees {each} pictures, so a budget of {request.pictures} is too small")
    # Six digits leave out rounding errors.
    rates = {name: float(f"{getattr(first.optimiser, name) * factor:.6g}") for name in first.rates}
    lines = [
        # A quoted JSON string is a TOML string, too.
        f"base = {json.dumps(str(recipe), ensure_ascii=False)}",
        f"steps = {steps}",
        f"save_every = {-(-steps // SAVES)}",
        f"evaluate_every = {-(-steps // VALIDATIONS)}",
        f"evaluate_share = {VALIDATION_SHARE}",
        f"[network]\nimage_size = {request.image_size}\n[optimiser]",
        *(f"{name} = {value!r}" for name, value in rates.items()),
        f"warmup = {max(1, min(first.optimiser.warmup, int(MOST_WARMUP * steps)))}",
    ]
    return "\n".join(lines) + "\n"


def _keep_settings(request: ComparisonRequest) -> None:
    """Raises ModelError for a folder with rows that cannot be compared with those of this request."""

    def identity(file: str) -> str:
        path = expanded(file)
        return file_sha256(path) if path.is_file() else file

    words = identity(str(request.words)) if request.words else ""
    settings = json.dumps([request.pictures, request.image_size, identity(request.backbone), words])
    path = request.folder / "settings.json"
    if not path.exists():
        request.folder.mkdir(parents=True, exist_ok=True)
        path.write_text(settings)
    elif path.read_text() != settings:
        raise ModelError(f"{request.folder} holds a comparison with other settings; name another folder with --out")


def _row(
    method: ComparedMethod, texts: Sequence[str], request: ComparisonRequest, report: Callable[[str], object]
) -> ComparisonRow:
    path = request.folder / f"{method.name}.json"
    if path.is_file():
        try:
            return TypeAdapter(ComparisonRow).validate_json(path.read_bytes())
        except ValidationError as error:
            raise ModelError(f"{path} cannot be read; remove it, and it is measured anew") from error
    folder = request.folder / method.name
    ends = []
    for factor, text in zip(FACTORS, texts, strict=True) if method.trained else ():
        report(f"{method.title}, rates times {factor:g}:")
        of_rate = folder / f"{factor:g}"
        of_rate.mkdir(parents=True, exist_ok=True)
        recipe, target = of_rate / "recipe.toml", of_rate / "final.safetensors"
        recipe.write_text(text, encoding="utf-8")
        if not target.exists():
            train(Run(recipe, request.backbone, of_rate, target, words=request.words), report)
        ends.append((_validation(target), factor, read_recipe(recipe).pictures, target))
    validation, factor, pictures, checkpoint = max(ends) if ends else _untrained(method, folder, request)
    report(f"{method.title}: measuring on the unseen classes")
    row = _measured(method, checkpoint, validation, factor if ends else None, pictures)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(dataclasses.asdict(row)) + "\n", encoding="utf-8")
    os.replace(partial, path)
    return row


def _validation(checkpoint: Path) -> float:
    """The highest mAP@all of a method, without diffusion, that a checkpoint's notes have."""
    figures = json.loads(read_metadata(checkpoint)["validation"])
    return max(float(value) for name, value in figures.items() if not name.endswith("+diffusion"))


def _untrained(method: ComparedMethod, folder: Path, request: ComparisonRequest) -> tuple[float, float, int, Path]:
    recipe = read_recipe(method.recipe)
    assert isinstance(recipe, ZseRecipe)
    config = dataclasses.replace(recipe.config, image_size=request.image_size)
    network = from_backbone(config, read_backbone(request.backbone))
    some = subsampled(read_task("zero-shot", "val").corpus, recipe.choose_share, recipe.choose_share)
    ready, figures = calibrated(network, some, recipe.dtype, recipe.methods)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "final.safetensors"
    save_checkpoint(ready.half(), target, {"origin": "not trained", "validation": json.dumps(figures)})
    return _validation(target), 0.0, 0, target


def _measured(
    method: ComparedMethod, checkpoint: Path, validation: float, factor: float | None, pictures: int
) -> ComparisonRow:
    matcher = load(checkpoint, variants=1)
    unseen = read_task("zero-shot", "unseen").corpus
    large, asked = read_large_task("everything", "unseen", "train").corpus, set(unseen.labels)
    queries = tuple(sketch for sketch in large.sketches if sketch.label in asked)[::EVERYTHING_EVERY]
    return ComparisonRow(
        method.name,
        method.title,
        matcher.best_method,
        factor,
        pictures,
        validation,
        _retrieval(matcher, unseen),
        _retrieval(matcher, Corpus(queries, large.photos)),
        _instances(matcher, read_task("fine-grained", "unseen").corpus),
        sum(parameter.numel() for parameter in matcher.network.parameters()),
        matcher.checkpoint_sha256,
    )


def _retrieval(matcher: Matcher, corpus: Corpus) -> Retrieval:
    best = matcher.best_method
    found = intervals(measure(corpus, score_matrices(matcher, corpus, (best,))).per_query, "queries")
    plain, diffused = found[best], found[f"{best}+diffusion"]
    return Retrieval(
        len(corpus.sketches), len(corpus.photos), plain["map_all"], diffused["map_all"], plain["precision_100"]
    )


def _instances(matcher: Matcher, corpus: Corpus) -> Interval:
    """acc@1 among the photos of each sketch's class; pairs of different classes are not compared."""
    best = matcher.best_method
    parts = (corpus.of([label]) for label in sorted({sketch.label for sketch in corpus.sketches}))
    found = [measure_instances(part, score_matrices(matcher, part, (best,))).per_query for part in parts]
    return bootstrap(np.concatenate([of.values[best]["acc_1"] for of in found])[:, None])[0]


def comparison_table(rows: Sequence[ComparisonRow]) -> str:
    """The rows as a table in Markdown, with the number of pictures above."""
    first = rows[0]
    titles: tuple[str, ...] = ("network", "ranks by", "rates", "validation", "unseen: mAP@all, Prec@100", "diffused")
    titles += ("unseen in everything: mAP@all, Prec@100", "diffused", "acc@1", "parameters")
    cells: list[Sequence[str]] = [titles, ["---"] * len(titles)]
    for row in rows:
        rates = "" if row.factor is None else f"x {row.factor:g}"
        found = [row.title, {"rn": "relation network", "ret": "[Ret]"}.get(row.method, row.method), rates]
        found.append(f"{row.validation:.3f}")
        for of in (row.unseen, row.everything):
            found += [f"{_cell(of.map_all)}, {of.precision_100.value:.3f}", _cell(of.diffused)]
        cells.append([*found, _cell(row.instances), f"{row.parameters / 1e6:.1f} M"])
    table = "\n".join("| " + " | ".join(line) + " |" for line in cells)
    return (
        f"Every training sees {max(row.pictures for row in rows):,} pictures, or the last whole step before. "
        f"{first.unseen.queries:,} queries against {first.unseen.photos:,} photos of unseen classes; "
        f"{first.everything.queries:,} queries against {first.everything.photos:,} photos of everything.\n\n{table}"
    )


def _cell(interval: Interval) -> str:
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"
