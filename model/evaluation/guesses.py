"""Guesses: how often the words that are guessed for a sketch name what was drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from model.datasets import GroupedTask
from model.errors import ModelError
from model.evaluation.scoring import encode_pictures
from model.matcher import Matcher


@dataclass(frozen=True)
class GuessFigures:
    """Means over the sketches of a group.

    Attributes:
        sketches: how many. named: the share that shows what a word of the vocabulary names, which alone can be guessed.
        first: the share whose first guess is right. among: the share that has a right guess.
        shown: how many guesses a sketch has; see ``Matcher.guesses``.
    """

    sketches: int
    named: float
    first: float
    among: float
    shown: float


def measure_guesses(matcher: Matcher, task: GroupedTask) -> Mapping[str, GuessFigures]:
    """The figures of all sketches of a task as "all", and of its groups by their names.

    Raises:
        ModelError: this checkpoint has no vocabulary.
    """
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


def guess_table(found: Mapping[str, GuessFigures]) -> str:
    """The figures as a table for the terminal."""
    width = max(map(len, found))
    lines = [f"{'sketches':{width}}  {'':>6}  {'named':>6}  {'first right':>11}  {'one right':>9}  {'guesses':>7}"]
    for name, row in found.items():
        shares = f"{row.named:>6.3f}  {row.first:>11.3f}  {row.among:>9.3f}  {row.shown:>7.2f}"
        lines.append(f"{name:{width}}  {row.sketches:>6}  {shares}")
    return "\n".join(lines)
