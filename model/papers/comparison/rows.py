"""The rows of the comparison as JSON: what was trained, what was chosen, and what was measured."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import TypeAdapter, ValidationError

from model.errors import ModelError
from model.evaluation import Interval

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = TypeVar("Record", bound="DataclassInstance")


@dataclass(frozen=True)
class Retrieval:
    """Category retrieval by one ranking: means over queries, with 95% intervals over queries."""

    map_all: Interval
    precision_100: Interval


@dataclass(frozen=True)
class Ranked:
    """The figures of one gallery.

    Attributes:
        queries, photos: how many were measured.
        plain, diffused: by the checkpoint's scores, and after score diffusion.
    """

    queries: int
    photos: int
    plain: Retrieval
    diffused: Retrieval


@dataclass(frozen=True)
class Figures:
    """What was measured with one checkpoint. Nothing was chosen by it.

    Attributes:
        method: by which it scored: its best one on the validation classes.
        unseen: unseen classes alone.
        everything: unseen classes in a gallery with photos of trained classes and ordinary photos (generalised).
        instances: acc@1, finding the photo that a sketch was drawn from among those of its class; without diffusion.
        chance: acc@1 of a random order.
        instance_queries: the sketches of that.
        photo_ms: to encode a photo, in milliseconds.
        query_ms: to encode a sketch and score all photos of ``unseen``, without diffusion.
        threads: that computed this.
        photo_bytes: what the method needs of a photo in an index: [Ret] in float32 and, where tokens are compared,
            these in a byte a number.
        parameters: how many numbers the checkpoint holds.
        sha256: of the checkpoint.
    """

    method: str
    unseen: Ranked
    everything: Ranked
    instances: Interval
    chance: float
    instance_queries: int
    photo_ms: float
    query_ms: float
    threads: int
    photo_bytes: int
    parameters: int
    sha256: str


@dataclass(frozen=True)
class Point:
    """mAP@all on a share of the validation classes after so many pictures: by [Ret] or relation network, the higher."""

    pictures: int
    val: float


@dataclass(frozen=True)
class TrainedRate:
    """A training at one learning rate.

    Attributes:
        rate: of the pretrained ViT.
        seconds: of all steps.
        curve: in the order of pictures seen; the last point is the end.
    """

    rate: float
    seconds: float
    curve: tuple[Point, ...]


@dataclass(frozen=True)
class Chosen:
    """A checkpoint that was chosen on the validation classes, and its figures.

    Attributes:
        rate: None for a network that was not trained.
        at: where on the curve of its training it is.
    """

    rate: float | None
    at: Point
    figures: Figures


@dataclass(frozen=True)
class Peak:
    """A checkpoint of an earlier moment than the end, chosen on the validation classes.

    Attributes:
        rate: of the training.
        at: where on its curve.
        method: as in ``Figures``.
        unseen: unseen classes alone. The other galleries are measured by the end only: to compare all pairs takes long.
        sha256: of the checkpoint.
    """

    rate: float
    at: Point
    method: str
    unseen: Ranked
    sha256: str


@dataclass(frozen=True)
class ComparisonRow:
    """One row.

    Attributes:
        name, title: of the method.
        image_size: side of the pictures.
        rates: its trainings; empty for a network that was not trained.
        final: the end of the training with the best end.
        peak: where the validation was best among all moments of all trainings; None where that is ``final``.
    """

    name: str
    title: str
    image_size: int
    rates: tuple[TrainedRate, ...]
    final: Chosen
    peak: Peak | None


def write_record(path: Path, record: DataclassInstance) -> None:
    """Writes it as one JSON object, all or nothing."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(asdict(record)) + "\n", encoding="utf-8")
    os.replace(partial, path)


def read_record(kind: type[Record], path: Path) -> Record | None:
    """What ``write_record`` wrote; None where there is no file. Raises ModelError where it holds another thing."""
    if not path.is_file():
        return None
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ModelError(
            f"{path} cannot be read: {where}: {first['msg']}; remove it, and it is measured anew"
        ) from error
