"""Chooses memorable parts of ordinary photos: scenes of several things, and the colour of one thing."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, get_args

import numpy as np

from sketch_search.model.datasets import corpus as files
from sketch_search.model.datasets.corpus import Box, Corpus, Picture, Scene, rows_by_label
from sketch_search.model.errors import ModelError

RememberedProtocol = Literal["scenes", "colours"]
REMEMBERED_PROTOCOLS: tuple[RememberedProtocol, ...] = get_args(RememberedProtocol)
#: The half of the photos on which choices are made, those of even numbers by file name, and the one for report.
HALVES = ("val", "unseen")
# Smaller things are not remembered: the share of the photo that the box of a thing covers.
_LEAST_SHARE = 0.04
_MOST_THINGS = 4
# Each photo is remembered by so many choices of sketches, because another sketch can move a photo by many places.
_DRAWS = 4


@dataclass(frozen=True)
class Drawn:
    """A thing of a photo. sketch: another one of its class. box: where the thing is in the photo."""

    sketch: Picture
    box: Box


@dataclass(frozen=True)
class Remembered:
    """A photo as it is remembered. photo: its number in the gallery. things: at least one."""

    photo: int
    things: tuple[Drawn, ...]


@dataclass(frozen=True)
class RememberedTask:
    """Remembered photos, once for each of the ``draws``, and the gallery.

    kinds: what each photo of the gallery shows. about: sentences for the figures.
    """

    protocol: RememberedProtocol
    queries: tuple[Remembered, ...]
    photos: tuple[Picture, ...]
    kinds: tuple[frozenset[str], ...]
    draws: int
    about: tuple[str, ...]

    @property
    def corpus(self) -> Corpus:
        """The sketches of all queries, and the gallery."""
        return Corpus(tuple(thing.sketch for query in self.queries for thing in query.things), self.photos)


def read_remembered(protocol: RememberedProtocol, half: str = HALVES[0]) -> RememberedTask:
    """Reads remembered photos of one of HALVES, each drawn four times; all photos are the gallery.

    Scenes have two to four things of two kinds at least; for colours each is remembered by itself. Raises ModelError.
    """
    if half not in HALVES:
        raise ModelError(f"--protocol {protocol} has the halves {' and '.join(HALVES)}, not {half}")
    scenes = files.read_scenes(folder := files.data_folder())
    sketches = files.fresh_sketches(folder, {label for scene in scenes for label in scene.shares})
    draws = [choose_remembered(scenes, sketches, protocol, HALVES.index(half), seed) for seed in range(_DRAWS)]
    chosen = tuple(chain.from_iterable(draws))
    if not chosen:
        raise ModelError(f"no ordinary photo has things for --protocol {protocol} of which there are sketches")
    photos = f"{half}: every second photo; things whose boxes cover at least {_LEAST_SHARE:.0%} of it"
    about = (f"{photos}; the means of {_DRAWS} choices of sketches, seeds 0 to {_DRAWS - 1}",)
    kinds = tuple(frozenset(scene.shares) for scene in scenes)
    return RememberedTask(protocol, chosen, tuple(scene.picture for scene in scenes), kinds, _DRAWS, about)


def choose_remembered(
    scenes: Sequence[Scene], sketches: Sequence[Picture], protocol: RememberedProtocol, half: int, seed: int = 0
) -> tuple[Remembered, ...]:
    """Chooses a sketch of each thing of every second photo, from the photo of number ``half`` on."""
    rows, chance = rows_by_label(sketch.label for sketch in sketches), np.random.default_rng(seed)
    found = list[Remembered]()
    for number in range(half, len(scenes), 2):
        large = [(label, box) for label, box in scenes[number].boxes if label in rows and _share(box) >= _LEAST_SHARE]
        things = tuple(Drawn(sketches[int(chance.choice(rows[label]))], box) for label, box in large)
        if protocol == "colours":
            found += [Remembered(number, (thing,)) for thing in things]
        elif len(things) <= _MOST_THINGS and len({label for label, _ in large}) > 1:
            found.append(Remembered(number, things))
    return tuple(found)


def _share(box: Box) -> float:
    left, top, right, bottom = box
    return (right - left) * (bottom - top)
