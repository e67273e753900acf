"""Measures how often guessed words are right, and how often matching patches lie on the drawn thing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from tqdm import tqdm

from sketch_search.model.engine import Numbers
from sketch_search.model.errors import ModelError
from sketch_search.model.explanation import Explanation
from sketch_search.model.images import open_image
from sketch_search.model.matcher import Matcher
from sketch_search.model.training.corpus import Corpus, Picture, find_drawn_photos, rows_by_label
from sketch_search.model.training.evaluation.figures import Interval, bootstrap
from sketch_search.model.training.evaluation.scoring import encode_pictures
from sketch_search.model.training.tasks import Task

COMPOSITES, PAIRS = 200, 250
QUARTERS = 4
# The order of two patches of a sketch is measured if they are this far apart, as a share of its side.
_APART = 0.3
CHANCE = 1 / QUARTERS


@dataclass(frozen=True)
class GuessFigures:
    """The means over the sketches of a group."""

    sketches: int  # how many
    named: float  # the share whose thing a word of the vocabulary names; only these can be guessed
    first: float  # the share whose first guess is right
    among: float  # the share that has a right guess
    shown: float  # how many guesses a sketch has; see ``Matcher.guesses``


def measure_guesses(matcher: Matcher, task: Task) -> Mapping[str, GuessFigures]:
    """Measures the guesses for a task's sketches, as "all" and by group. Raises ModelError without words."""
    if not matcher.words:
        raise ModelError(f"this checkpoint ({matcher.config.name}) has no vocabulary, and guesses nothing")
    sketches = task.corpus.sketches
    tokens = encode_pictures(matcher, sketches, "sketch")
    rows = []
    for row, sketch in enumerate(sketches):
        number = matcher.book.of_class(sketch.label)
        word = None if number is None else matcher.words[number]
        guesses = [guess.word for guess in matcher.guesses(tokens[row : row + 1])]
        rows.append((word is not None, guesses[:1] == [word], word in guesses, len(guesses)))
    values = np.array(rows, np.float64).reshape(len(sketches), 4)
    groups = {"all": np.ones(len(sketches), bool)}
    groups |= {name: np.array([s.label in labels for s in sketches]) for name, labels in task.groups.items()}
    return {name: GuessFigures(int(chosen.sum()), *values[chosen].mean(axis=0)) for name, chosen in groups.items()}


def guess_table(figures: Mapping[str, GuessFigures]) -> str:
    width = max(map(len, figures))
    lines = [f"{'sketches':{width}}  {'':>6}  {'named':>6}  {'first right':>11}  {'one right':>9}  {'guesses':>7}"]
    for name, row in figures.items():
        shares = f"{row.named:>6.3f}  {row.first:>11.3f}  {row.among:>9.3f}  {row.shown:>7.2f}"
        lines.append(f"{name:{width}}  {row.sketches:>6}  {shares}")
    return "\n".join(lines)


@dataclass(frozen=True)
class Composite:
    """A sketch, and photos of four classes; ``photos[quarter]``, counted row by row, has the sketch's class."""

    sketch: Picture
    photos: tuple[Picture, ...]
    quarter: int


@dataclass(frozen=True)
class PartsReport:
    """Means over composites and pairs, with 95% intervals by resampling; without pairs, order and places are None."""

    composites: int
    classes: int  # of their sketches
    right: Interval  # share of the sketch tokens whose best match lies in the right quarter; by chance CHANCE
    tokens: Interval  # share of the canvas's compared tokens that lie there, from which the selection moves CHANCE
    most: Interval  # share of the composites in which more sketch tokens point there than at any other quarter
    pairs: int
    order: Interval | None  # share of distant sketch tokens, by columns and by rows, whose matches keep their order
    places: Interval | None  # different matches, for each sketch token

    def table(self) -> str:
        lines = [f"{self.composites} canvases of {self.classes} classes, by chance {CHANCE:.2f}; {self.pairs} pairs"]
        for name, interval in (
            ("best matches in the right quarter", self.right),
            ("compared tokens in the right quarter", self.tokens),
            ("canvases most matches of which are there", self.most),
            ("order of distant parts kept, by chance 0.5", self.order),
            ("different places for each part", self.places),
        ):
            if interval is not None:
                lines.append(f"{name:<44}{interval.value:.3f}  (95%: {interval.low:.3f} to {interval.high:.3f})")
        return "\n".join(lines)


def choose_composites(corpus: Corpus, count: int) -> tuple[Composite, ...]:
    """Chooses composites: classes in turn, quarters equally often. Raises ModelError if there are too few classes."""
    photos, sketches = (rows_by_label(p.label for p in pictures) for pictures in (corpus.photos, corpus.sketches))
    sketches = {label: rows for label, rows in sketches.items() if label in photos}
    if len(photos) < QUARTERS or not sketches:
        raise ModelError(
            f"composites need photos of {QUARTERS} classes and a sketch of one of them; "
            f"there are photos of {len(photos)} and sketches of {len(sketches)} of these"
        )
    chance = np.random.default_rng(0)
    labels = [str(label) for label in chance.permutation(sorted(sketches))]
    quarters = chance.permutation(np.arange(count) % QUARTERS).tolist()

    def one_of(pictures: Sequence[Picture], rows: list[int]) -> Picture:
        return pictures[rows[int(chance.integers(len(rows)))]]

    chosen = []
    for number, quarter in enumerate(quarters):
        label = labels[number % len(labels)]
        others = chance.choice(sorted(photos.keys() - {label}), QUARTERS - 1, replace=False).tolist()
        around = [one_of(corpus.photos, photos[name]) for name in (*others[:quarter], label, *others[quarter:])]
        chosen.append(Composite(one_of(corpus.sketches, sketches[label]), tuple(around), quarter))
    return tuple(chosen)


def compose(photos: Sequence[Image.Image], size: int) -> Image.Image:
    """Squashes four photos to the quarters of a (size, size) canvas. The size is even."""
    half = size // 2
    canvas = Image.new("RGB", (size, size))
    for quarter, photo in enumerate(photos):
        canvas.paste(photo.resize((half, half), Image.Resampling.BICUBIC), (quarter % 2 * half, quarter // 2 * half))
    return canvas


def quarters_of(cells: Numbers, grid: int) -> Numbers:
    """Finds the quarter in which the centre of each cell lies, in the shape of ``cells``."""
    down, across = cells // grid, cells % grid
    return np.int64(2) * (2 * down + 1 > grid) + (2 * across + 1 > grid)


def measure_parts(matcher: Matcher, corpus: Corpus, drawn: Corpus, canvases: int = COMPOSITES) -> PartsReport:
    """Measures whether matches lie on the thing of ``corpus``, and in its order of ``drawn``. Raises ModelError."""
    composites = choose_composites(corpus, canvases)
    rows = []
    for composite in tqdm(composites, desc="explaining", unit="canvas", disable=None):
        canvas = compose([open_image(photo.path) for photo in composite.photos], matcher.config.image_size)
        explanation = matcher.explain(open_image(composite.sketch.path, sketch=True), canvas)
        # The sketch tokens that have their best match in each quarter.
        best = np.array([photo for _, photo, _ in explanation.matches()], np.int64)
        pointed = np.bincount(quarters_of(best, explanation.grid), minlength=QUARTERS)
        there = quarters_of(explanation.photo_cells, explanation.grid) == composite.quarter
        right, others = pointed[composite.quarter], pointed[np.arange(QUARTERS) != composite.quarter]
        rows.append((float(right / pointed.sum()), float(there.mean()), float(right > others.max())))
    targets, kept = find_drawn_photos(drawn), list[tuple[float, float]]()
    chosen = np.random.default_rng(0).permutation(np.flatnonzero(targets >= 0))[:PAIRS]
    for row in tqdm(chosen.tolist(), desc="explaining", unit="pair", disable=None):
        sketch = open_image(drawn.sketches[row].path, sketch=True)
        kept.append(order_kept(matcher.explain(sketch, open_image(drawn.photos[targets[row]].path))))
    order, places = bootstrap(np.array(kept)) if kept else (None, None)
    classes = len({composite.sketch.label for composite in composites})
    right, tokens, most = bootstrap(np.array(rows))
    return PartsReport(len(rows), classes, right, tokens, most, len(kept), order, places)


def order_kept(explanation: Explanation) -> tuple[float, float]:
    """Returns the share of tokens _APART whose matches keep their order, equal places half, and matches for each."""
    grid, matches = explanation.grid, explanation.matches()
    cells = np.array([(sketch, photo) for sketch, photo, _ in matches], np.int64)
    shares = []
    for along in (cells % grid, cells // grid):
        drawn, matched = (column[:, None] - column for column in along.T)
        distant = drawn > _APART * grid
        shares += [(np.sign(matched[distant]) + 1) / 2]
    both = np.concatenate(shares)
    return float(both.mean()) if len(both) else 0.5, len(set(cells[:, 1].tolist())) / len(cells)
