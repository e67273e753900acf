"""Measures what clicks of a simulated person help, by labelled sketches, in the gallery of everything or a folder's.

A photo is right for a sketch where the folder that it lies in has the name of the sketch's class.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sketch_search import Gallery
from sketch_search.indexer import BuildRequest, build
from sketch_search.service.engine import open_matcher
from sketch_search.service.schemas.search import ListedPhoto, ResultGroup
from sketch_search.service.settings import Settings
from sketch_search.training.corpus import Picture, read_class_folders, read_protocol
from sketch_search.training.pages import table
from sketch_search.training.tasks import UNSEEN, read_task, write_folders

# The number of groups that the person dislikes at once if none on the page is right.
DISLIKED = 3
# Results on a page, and how often the person clicks.
PAGE, CLICKS = 20, 3


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.clicks", description=__doc__)
    add = parser.add_argument
    add("--weights", type=Path, help="checkpoint (the embedded one)")
    add("--variants", type=int, help="variants of each sketch (the checkpoint's)")
    add("--data", type=Path, metavar="DIR", help="sketch/<class>/* and photo/<class>/* (everything, of unseen classes)")
    add("--per-class", type=int, default=4, metavar="N", help="sketches of each class (4)")
    add("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    with TemporaryDirectory() as place:
        folder = options.data or Path(place)
        if options.data is None:
            write_folders(read_task("everything", "unseen"), folder)
        sketches = labelled_sketches(options.data or folder / UNSEEN, options.per_class)
        index = Path(place) / "index"
        settings = Settings(index=index, weights=options.weights, variants=options.variants)
        matcher = open_matcher(settings)
        build(index, BuildRequest([folder / "photo"]), matcher)
        gallery = Gallery(settings, matcher)
        bar = tqdm(sketches, desc="clicking", unit="sketch", disable=None)
        figures = np.mean([play(gallery, sketch) for sketch in bar], axis=0).tolist()
        gallery.close()
    rows = {str(number): {"page": page, "precision": precision} for number, (page, precision) in enumerate(figures)}
    if options.json:
        print(json.dumps({"sketches": len(sketches), **rows}))
    else:
        head = (f"clicks ({len(sketches)} sketches)", "pages of groups with a correct photo", f"precision@{PAGE}")
        print(table([head, *((number, *(f"{value:.3f}" for value in row.values())) for number, row in rows.items())]))
    return 0


def labelled_sketches(folder: Path | None, per_class: int, split: str = "val") -> tuple[Picture, ...]:
    """Returns the first sketches of each class, of sketch/<class>/* or SKETCH_SEARCH_DATA; sources take turns."""
    corpus = read_protocol(split) if folder is None else read_class_folders(folder)
    by_class: dict[str, dict[str, list[Picture]]] = {}
    for picture in corpus.sketches:
        by_class.setdefault(picture.label, {}).setdefault(picture.source, []).append(picture)
    chosen: list[Picture] = []
    for _, sources in sorted(by_class.items()):
        turns = [picture for turn in zip_longest(*sources.values()) for picture in turn if picture is not None]
        chosen += turns[:per_class]
    return tuple(chosen)


@dataclass
class Person:
    """Knows what was drawn, looks at a page of groups and clicks.

    The first right photo that is not liked yet is liked: first those that stand for a group, then those in the stacks.
    Where no group is right, the first DISLIKED ones are disliked.
    """

    label: str
    like: list[int] = field(default_factory=list)
    unlike: list[int] = field(default_factory=list)

    def is_right(self, photo: ListedPhoto) -> bool:
        """Returns True if a photo shows what was drawn; equal files may lie in several folders."""
        return any(PurePosixPath(path).parent.name == self.label for path in photo.paths)

    def click(self, groups: Sequence[ResultGroup]) -> None:
        shown = [group.best for group in groups] + [photo for group in groups for photo in group.more]
        right = [photo.id for photo in shown if self.is_right(photo)]
        if right:
            # If all are liked already, nothing more can be liked.
            self.like += [photo for photo in right if photo not in self.like][:1]
        else:
            self.unlike += [group.best.id for group in groups[:DISLIKED] if group.best.id not in self.unlike]


def play(gallery: Gallery, sketch: Picture) -> NDArray[np.float64]:
    """Searches with a sketch, before any click and after each.

    A liked photo is the first of its results, so it counts there as found. Returns (CLICKS + 1, 2): whether a page of
    groups shows a right one, and the precision of the first photos.
    """
    data, person = sketch.path.read_bytes(), Person(sketch.label)
    rows = []
    for _ in range(CLICKS + 1):
        asked: dict[str, Any] = {"like": person.like, "unlike": person.unlike, "k": PAGE}
        groups = gallery.search(data, view="groups", **asked).answer.groups or ()
        photos = gallery.search(data, **asked).answer.results
        right = sum(person.is_right(photo) for photo in photos)
        rows.append((any(person.is_right(group.best) for group in groups), right / PAGE))
        person.click(groups)
    return np.array(rows, np.float64)


if __name__ == "__main__":
    sys.exit(main())
