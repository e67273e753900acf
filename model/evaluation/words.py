"""Searches by words: what the names of the classes find, alone and together with the sketches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from model.matcher import Matcher
from model.network import METHODS, Method, Tokens
from model.ranking import EXAMPLES, led_by_word, named, pulled

# The row of the word alone.
WORD = "word"


def word_matrices(
    matcher: Matcher, labels: Sequence[str], gallery: Tokens, matrices: Mapping[str, NDArray[np.floating]]
) -> dict[str, NDArray[np.floating]]:
    """(sketches, photos) float32, higher is better: by the word of each sketch's class, as a search takes it.

    Args:
        labels: of each sketch the class, which is its word. gallery: the photos' tokens.
        matrices: the scores of the sketches alone, by the names of ``score_matrices``.

    Returns:
        "word", the word alone: its best photos stand for it, and their [Ret] is searched by; and "rn+word",
        "rn+diffusion+word" and so on for the word together with the sketch.

    Raises:
        ModelError: this checkpoint has no vocabulary, or that does not have the name of a class.
    """
    kinds = sorted(set(labels))
    scores = matcher.word_scores(gallery, [matcher.book.find(label) for label in kinds])
    shown = {label: named(of_word, of_word.max()) for label, of_word in zip(kinds, scores, strict=True)}
    alone = {label: _alone(matcher, gallery, words) for label, words in shown.items()}
    found: dict[str, NDArray[np.floating]] = {WORD: np.stack([alone[label] for label in labels])}
    for name, of_sketches in matrices.items():
        method = _method(name)
        if method is not None:
            rows = zip(torch.from_numpy(of_sketches), labels, strict=True)
            found[f"{name}+{WORD}"] = np.stack([led_by_word(row, shown[label], method).numpy() for row, label in rows])
    return found


def _alone(matcher: Matcher, gallery: Tokens, words: torch.Tensor) -> NDArray[np.float32]:
    """(p,): the scores of a search by a word with this support (p,), without a sketch."""
    best = words.argsort(descending=True, stable=True)[:EXAMPLES]
    query = Tokens.of_ret(pulled(None, gallery.ret[best]))
    scores = matcher.scores(query, gallery, "ret")
    if matcher.calibration.diffusion is not None:
        scores = matcher.diffuse(scores, gallery.ret, "ret")
    return led_by_word(scores[0], words, "ret").numpy()


def _method(name: str) -> Method | None:
    """The method of a matrix of this name; None where it is another baseline's."""
    return next((method for method in METHODS if method == name.partition("+")[0]), None)
