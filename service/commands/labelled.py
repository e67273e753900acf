"""Labelled sketches, and the photos of a server that are right for them: those in a folder with the class's name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from model.datasets import Picture, read_class_folders, read_protocol
from service.client import Client
from service.comparison import relevant_photos
from service.errors import BadSearch
from service.schemas import IndexInfo, ModelInfo


def labelled_sketches(folder: Path | None, per_class: int, split: str = "val") -> tuple[Picture, ...]:
    """The first ``per_class`` sketches of each class; where a class has several sources, they take turns.

    Args:
        folder: holds sketch/<class>/*. None for the data that SKETCH_SEARCH_DATA names.
        split: which classes of that data.

    Raises:
        ModelError: there is neither.
    """
    corpus = read_protocol(split) if folder is None else read_class_folders(folder)
    by_class: dict[str, dict[str, list[Picture]]] = {}
    for picture in corpus.sketches:
        by_class.setdefault(picture.label, {}).setdefault(picture.source, []).append(picture)
    chosen: list[Picture] = []
    for _, sources in sorted(by_class.items()):
        turns = [picture for turn in zip_longest(*sources.values()) for picture in turn if picture is not None]
        chosen += turns[:per_class]
    return tuple(chosen)


@dataclass(frozen=True)
class Gallery:
    """What a server searches.

    Attributes:
        model, index: as it describes them.
        relevant: how many photos lie in folders of each name.
        sketches: those of classes that it has photos of.
    """

    model: ModelInfo
    index: IndexInfo
    relevant: Counter[str]
    sketches: tuple[Picture, ...]


def gallery_of(client: Client, sketches: Sequence[Picture]) -> Gallery:
    """What the server searches, and those of the sketches that it can answer.

    Raises:
        BadSearch: there are no sketches, none of a class that the gallery has, or the server has nothing loaded.
        ServiceError, httpx.HTTPError: as the client's methods.
    """
    if not sketches:
        raise BadSearch("an evaluation needs sketches; name a folder of sketch/<class>/*.")
    info = client.info()
    if info.model is None or info.index is None:
        raise BadSearch(f"the server cannot answer yet: {info.reason}")
    relevant = relevant_photos(lambda number, offset: client.cluster(number, offset=offset), info.index.clusters)
    found = tuple(picture for picture in sketches if relevant[picture.label])
    if not found:
        raise BadSearch("no photo lies in a folder named as a sketch's class, so none can be right.")
    return Gallery(info.model, info.index, relevant, found)
