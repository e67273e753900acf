"""`sketch-search evaluate --feedback`: how much a few clicks on the page of kinds help, by a simulated person."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import SecretStr
from tqdm import tqdm

from model.datasets import Picture
from model.metrics import list_metrics
from service.client import Client
from service.commands.labelled import gallery_of, labelled_sketches
from service.comparison import labels_of
from service.schemas import Kind, SearchQuery, SearchResponse, SearchResult

# Results over which average precision and the share found are taken.
DEEP = 100
# What the person dislikes at once where no kind on the page is right.
DISLIKED = 3


@dataclass(frozen=True)
class Round:
    """What the person has after some clicks: means over all queries, 0 to 1.

    Attributes:
        right_kind: whether a page of k kinds shows a right photo.
        right_photo: whether a page of k photos shows one.
        precision: share of the first k photos that are right.
        map: average precision of the first DEEP photos, divided by min(DEEP, the gallery's right photos).
        found: share of the gallery's right photos that are among the first DEEP.
    """

    right_kind: float
    right_photo: float
    precision: float
    map: float
    found: float


@dataclass(frozen=True)
class FeedbackEvaluation:
    """A simulated person's rounds.

    Attributes:
        queries: sketches that were searched with. photos: of the server's index. k: results on a page.
        methods: for each method of the first search, the rounds in their order; the first is before any click.
    """

    queries: int
    photos: int
    k: int
    methods: dict[str, list[Round]]


@dataclass
class Person:
    """Knows what was drawn, looks at a page of kinds and clicks.

    The first right photo that is not liked yet is liked: first those that stand for a kind, then those in the stacks.
    Where no kind is right, the first DISLIKED ones are disliked.
    """

    label: str
    like: list[int] = field(default_factory=list)
    unlike: list[int] = field(default_factory=list)

    def is_right(self, result: SearchResult) -> bool:
        """Whether a photo shows what was drawn."""
        return self.label in labels_of(result)

    def click(self, kinds: Sequence[Kind]) -> None:
        """One round of clicks on a page of kinds."""
        shown = [kind.best for kind in kinds] + [photo for kind in kinds for photo in kind.more]
        right = [photo.id for photo in shown if self.is_right(photo)]
        if right:
            # Where all are liked already there is nothing more to say.
            self.like += [photo for photo in right if photo not in self.like][:1]
        else:
            self.unlike += [kind.best.id for kind in kinds[:DISLIKED] if kind.best.id not in self.unlike]


def evaluate_with_feedback(
    url: str,
    key: SecretStr | None,
    *,
    data: Path | None,
    split: str,
    per_class: int,
    k: int,
    methods: Sequence[str],
    rounds: int,
    as_json: bool,
) -> int:
    """Let a simulated person search the server at ``url`` and print the figures. Raises as ``play``."""
    sketches = labelled_sketches(data, per_class, split)
    with Client(url, None if key is None else key.get_secret_value()) as client:
        total = len(sketches) * len(methods)
        with tqdm(desc="searching", unit="sketch", total=total, disable=not sys.stderr.isatty()) as bar:
            result = play(client, sketches, k=k, methods=methods, rounds=rounds, advance=bar.update)
    print(json.dumps(dataclasses.asdict(result)) if as_json else feedback_table(result))
    return 0


def play(
    client: Client,
    sketches: Sequence[Picture],
    *,
    k: int = 20,
    methods: Sequence[str] = ("auto",),
    rounds: int = 3,
    advance: Callable[[], object] = lambda: None,
) -> FeedbackEvaluation:
    """Search with every sketch, and go on with what a simulated person clicks, for so many rounds.

    A photo is right when the folder that it lies in has the name of the sketch's class. Sketches of classes that the
    gallery has no photo of are left out. A liked photo is the first of its results, so it counts there as found.

    Raises as ``gallery_of``.
    """
    gallery = gallery_of(client, sketches)
    methods_rounds: dict[str, list[Round]] = {}
    for method in methods:
        rows = []
        for sketch in gallery.sketches:
            rows.append(_rounds(client, sketch, k, method, rounds, gallery.relevant))
            advance()
        # (queries, rounds, figures)
        means = np.array(rows).mean(axis=0)
        methods_rounds[method] = [Round(*map(float, row)) for row in means]
    return FeedbackEvaluation(len(gallery.sketches), gallery.index.photos, k, methods_rounds)


def _rounds(
    client: Client, sketch: Picture, k: int, method: str, rounds: int, relevant: Counter[str]
) -> list[tuple[float, ...]]:
    """The figures of one sketch: a row for each round, in the order of the fields of ``Round``."""
    data, person = sketch.path.read_bytes(), Person(sketch.label)
    rows = []
    for number in range(rounds + 1):
        asked = SearchQuery(
            like=tuple(person.like),
            unlike=tuple(person.unlike),
            # Liked photos are compared by [Ret], whatever ranked the photos before.
            method="auto" if person.like else method,
        )
        kinds = client.search(data, asked.model_copy(update={"view": "kinds", "k": k})).kinds or ()
        photos = client.search(data, asked.model_copy(update={"k": min(DEEP, relevant.total())}))
        rows.append(_figures(person, kinds, photos, k, relevant[sketch.label]))
        if number < rounds:
            person.click(kinds)
    return rows


def _figures(person: Person, kinds: Sequence[Kind], photos: SearchResponse, k: int, relevant: int) -> tuple[float, ...]:
    hits = [person.is_right(result) for result in photos.results]
    first, deep = list_metrics(hits, relevant, k), list_metrics(hits, relevant, DEEP)
    right_kind = any(person.is_right(kind.best) for kind in kinds)
    return (float(right_kind), float(any(hits[:k])), first.precision, deep.average_precision, deep.recall)


def feedback_table(result: FeedbackEvaluation) -> str:
    """The figures as a table for people."""
    head = ("right kind", "right photo", f"P@{result.k}", f"mAP@{DEEP}", f"R@{DEEP}")
    lines = [
        f"{result.queries} sketches against {result.photos} photos, {result.k} kinds or photos a page",
        "",
        f"{'method':<8}{'clicks':<8}" + "".join(f"{name:>13}" for name in head),
    ]
    for method, rounds in result.methods.items():
        for number, row in enumerate(rounds):
            figures = "".join(f"{value:>13.3f}" for value in dataclasses.astuple(row))
            lines.append(f"{method:<8}{number:<8}" + figures)
    return "\n".join(lines)
