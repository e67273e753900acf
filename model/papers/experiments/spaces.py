"""What the training does to the space of vectors (Fig. 1): retrieval within and across domains, and t-SNE of both."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from model.checkpoint import file_sha256
from model.datasets import Corpus, Picture, some_of_each
from model.errors import ModelError
from model.evaluation import encode_pictures, new_figure
from model.matcher import Matcher, load
from model.metrics import category_metrics
from model.network import Tokens, anchor_network_from, read_backbone
from model.papers.experiments.plots import FIRST, SECOND
from model.papers.experiments.trials import ExperimentRequest, keep_row, kept_row, markdown
from model.papers.runs import train

# As many classes as the paper draws, and so many sketches and photos of each.
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


def compare_spaces(
    request: ExperimentRequest, weights: Path | None, report: Callable[[str], object]
) -> tuple[SpaceRow, ...]:
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
    path, trained = request.folder / "before.json", weights
    before = _row(path, "before", "", corpus, lambda: _untrained(request), report)
    path, sha256 = request.folder / "after.json", file_sha256(trained)
    return before, _row(path, "after", sha256, corpus, lambda: load(trained), report)


def spaces_table(rows: Sequence[SpaceRow]) -> str:
    """mAP@all of each network and pair of domains."""
    titles = ("training", "network", "photos by a photo", "sketches by a sketch", "photos by a sketch")
    lines = [
        (row.name, row.network, *(f"{value:.3f}" for value in (row.photo_photo, row.sketch_sketch, row.sketch_photo)))
        for row in rows
    ]
    counted = f"{rows[0].sketches:,} sketches, {rows[0].photos:,} photos; mAP@all; t-SNE with seed {rows[0].seed}."
    return f"{counted}\n\n{markdown(titles, lines)}"


def draw_spaces(rows: Sequence[SpaceRow], picture: Path) -> None:
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


def _row(
    path: Path,
    name: str,
    sha256: str,
    corpus: Corpus,
    network: Callable[[], Matcher],
    report: Callable[[str], object],
) -> SpaceRow:
    found = kept_row(SpaceRow, path)
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
    keep_row(row, path)
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
