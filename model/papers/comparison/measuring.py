"""Measures one checkpoint: on unseen classes, in a gallery of everything, by instances, and what it costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model.datasets import Corpus, Picture, read_large_task, read_task
from model.evaluation import encode_pictures, intervals, measure, measure_instances
from model.matcher import Matcher, load
from model.network import Modality, Tokens
from model.papers.comparison.rows import Figures, Peak, Point, Ranked, Retrieval

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
