"""Anchors of words: the vectors of the training's classes, and the words nearest to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F

from model.papers.sketch_an_anchor.semantic import WordAnchors
from model.papers.word_vectors import WordVectors, class_rows, class_vectors

# Words whose neighbours are looked for at once.
_AT_ONCE = 16


def word_anchors(
    words: WordVectors,
    labels: Sequence[str],
    names: Mapping[str, Sequence[str]],
    *,
    neighbours: int,
    kept_out: Sequence[str] = (),
) -> WordAnchors:
    """The vectors of classes, and the words nearest to each.

    The vector of a class is that of its name in any spelling. A name of several words that the file does not have is
    the mean of their vectors.

    Args:
        labels: the classes.
        names: for classes that are called otherwise in the file, the words whose vectors are averaged.
        neighbours: how many of the nearest words, by cosine, the class itself left out.
        kept_out: classes whose names are never among the neighbours: the training may not know them.

    Raises:
        ModelError: the file lacks classes.
    """
    found = class_rows(words, labels, names)
    vectors = class_vectors(words, found)
    kept = class_rows(words, kept_out, names, lacking=True)
    forbidden = [row for rows in kept.values() for row in rows]
    return WordAnchors(vectors, _neighbours(words.vectors, vectors, list(found.values()), forbidden, neighbours))


def _neighbours(
    table: torch.Tensor, vectors: torch.Tensor, own: list[list[int]], forbidden: list[int], count: int
) -> torch.Tensor:
    """(c, count, d): the rows of the table nearest to each vector, or fewer where the table is small."""
    usable = len(table) - len(set(forbidden)) - max(len(rows) for rows in own)
    count = max(0, min(count, usable))
    directions = F.normalize(table, dim=1)
    chosen = []
    for start in range(0, len(vectors), _AT_ONCE):
        cosines = F.normalize(vectors[start : start + _AT_ONCE], dim=1) @ directions.T
        cosines[:, forbidden] = -torch.inf
        for row, rows in zip(cosines, own[start : start + _AT_ONCE], strict=True):
            row[rows] = -torch.inf
        chosen.append(cosines.topk(count, dim=1).indices)
    return directions[torch.cat(chosen)]
