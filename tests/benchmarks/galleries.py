"""Queries and galleries of the search benchmarks: real photos where there are any, else drawn ones."""

import itertools
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from sketch_search.indexer import BuildRequest, build
from sketch_search.indexer.samples import SKETCHED, THINGS, draw_photo, draw_sketch
from sketch_search.model import Matcher
from sketch_search.model.images.files import open_image
from sketch_search.training.corpus import DATA_VARIABLE, Corpus, data_folder, read_data
from tests.benchmarks.clicks import labelled_sketches

# Queries of each class. For unseen classes three, as in the evaluation of the system that the two stages come from.
PER_CLASS = {"unseen": 3, "val": 1, "train": 1}


@dataclass(frozen=True)
class Query:
    """A labelled sketch, by a name of its own; unseen: the network was not trained on its class."""

    name: str
    label: str
    unseen: bool
    source: Path | Image.Image

    def image(self) -> Image.Image:
        return self.source if isinstance(self.source, Image.Image) else open_image(self.source)


def prepare(place: Path, matcher: Matcher, drawn: int | None, per_class: Mapping[str, int] = PER_CLASS) -> list[Query]:
    """Builds or updates the index at ``place``, of drawn pictures or SKETCH_SEARCH_DATA. Returns queries for it."""
    if drawn is None and os.environ.get(DATA_VARIABLE):
        corpus = read_data(data_folder())
        build(place, BuildRequest(sorted({photo.path.parents[1] for photo in corpus.photos}), embedder="ret"), matcher)
        return _sketches(corpus, per_class)
    drawn_index(place, drawn or 500, matcher)
    return [Query(name, name, False, draw_sketch(name)) for name in SKETCHED]


def drawn_index(place: Path, count: int, matcher: Matcher) -> Path:
    """Builds or updates an index of ``count`` drawn pictures, which lie beside it; returns ``place``."""
    folder = place.with_name(f"{place.name}-photos")
    draw_gallery(folder, count)
    build(place, BuildRequest([folder], embedder="ret"), matcher)
    return place


def draw_gallery(folder: Path, count: int) -> None:
    """Draw ``count`` different pictures, each into the folder of the thing it shows; the things take turns."""
    names = list(THINGS)
    for number in range(count):
        name = names[number % len(names)]
        (folder / name).mkdir(parents=True, exist_ok=True)
        file = folder / name / f"{number:05}.jpg"
        if not file.exists():
            draw_photo(name, number // len(names) + 1).save(file, quality=90)


def _sketches(corpus: Corpus, per_class: Mapping[str, int]) -> list[Query]:
    """Chooses sketches of every class that has photos, as many as ``per_class`` says for each part."""
    there = {photo.label for photo in corpus.photos}
    queries: list[Query] = []
    for part, of_class in per_class.items():
        chosen = [p for p in labelled_sketches(None, of_class, part) if p.label in there]
        queries += [Query(f"{p.source}/{p.path.name}", p.label, part == "unseen", p.path) for p in chosen]
    # First the first sketch of every class, then the second ones, so that the head of the list is a fair sample, too.
    turns = defaultdict[str, Iterator[int]](itertools.count)
    return sorted(queries, key=lambda query: next(turns[query.label]))
