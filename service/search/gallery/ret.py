"""[Ret] of the photos of a gallery.

The photos of the cells that are opened for a query are compared with it. The best of these are then compared exactly,
as the checkpoint has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from indexer import Index
from model import Matcher, Tokens
from model.ranking import ALIKE, Likeness
from service.search.ranking import Rows, Scores

Mask = NDArray[np.bool_]

# Photos whose [Ret] is compared at a time: some 12 MiB with the default network.
RET_BATCH = 1 << 14
# Cells are searched by the cosine alone. So many times as many are found as are wanted, and so many at
# least, because the prior, and what else counts, puts them in another order. In a made gallery of 100,000 photos, 4,000
# of them held all of the first 96 by distance, and 1,000 held 0.995 of them.
FOUND_FOR_ONE, FOUND_AT_LEAST = 4, 4096


class GalleryRet(Protocol):
    """What a search asks about [Ret] of the photos.

    Attributes:
        mean: (d,) the mean of all normalised [Ret].
    """

    mean: torch.Tensor

    def of(self, rows: Rows) -> torch.Tensor:
        """(m, d): [Ret] of these photos, on the matcher's device."""

    def scores(self, sketch: Tokens, rows: Rows) -> Scores:
        """(m,) float32: the query against these photos by [Ret]."""

    def word_scores(self, word: int, rows: Rows) -> Scores:
        """(m,) float32: how much these photos show what a word names; see ``Matcher.word_scores``."""

    def likeness(self, examples: Rows, rows: Rows, others: torch.Tensor | None = None) -> Scores:
        """(m,) float32: how much these photos are like the most similar example; see ``Likeness.to``."""

    def leaving(self, unliked: Rows, liked: Rows, others: torch.Tensor | None = None) -> Mask:
        """(p,): the photos that are unliked or of the kind of one that is; see ``Likeness.leaving``."""


class RetOfIndex:
    """[Ret] of the photos of an index: vectors that are read when they are compared."""

    def __init__(self, index: Index, matcher: Matcher) -> None:
        self._vectors = index.vectors
        self._matcher = matcher
        self.mean = torch.from_numpy(index.vectors.mean).to(matcher.device)

    def of(self, rows: Rows) -> torch.Tensor:
        """As in ``GalleryRet``."""
        return self._vectors.of(rows).to(self._matcher.device)

    def scores(self, sketch: Tokens, rows: Rows) -> Scores:
        """As in ``GalleryRet``."""
        return _joined(self._matcher.scores(sketch, part, "ret") for part in self._read(rows))

    def word_scores(self, word: int, rows: Rows) -> Scores:
        """As in ``GalleryRet``."""
        return _joined(self._matcher.word_scores(part, [word]) for part in self._read(rows))

    def likeness(self, examples: Rows, rows: Rows, others: torch.Tensor | None = None) -> Scores:
        """As in ``GalleryRet``."""
        found, first = [np.empty(0, np.float32)], torch.arange(len(examples))
        for part in _slices(len(rows)):
            both = Likeness(self.of(np.concatenate([examples, rows[part]])), self.mean)
            then = torch.arange(len(examples), len(examples) + len(rows[part]))
            found.append(both.to(first, then, others=others).numpy())
        return np.concatenate(found)

    def leaving(self, unliked: Rows, liked: Rows, others: torch.Tensor | None = None) -> Mask:
        """As in ``GalleryRet``. Photos that are less like an unliked one than kinds are, are not looked for."""
        count, photos = FOUND_AT_LEAST, self._vectors.count
        while True:
            found = self.near(self._centred(unliked), count, None)
            alike = self.likeness(unliked, found) > ALIKE
            if count >= photos or alike.sum() < len(found) // 2:
                break
            count *= 2
        rows = np.union1d(found[alike], np.union1d(unliked, liked))
        places = {"unliked": np.searchsorted(rows, unliked), "liked": np.searchsorted(rows, liked)}
        of_rows = Likeness(self.of(rows), self.mean)
        gone = of_rows.leaving(
            torch.from_numpy(places["unliked"]), torch.from_numpy(places["liked"]), others=others
        ).numpy()
        leaving = np.zeros(photos, np.bool_)
        leaving[rows[gone]] = True
        return leaving

    def near(self, directions: torch.Tensor, count: int, passing: Mask | None) -> Rows:
        """Rows, ascending, among which are the ``count`` best by any of these directions (q, d), of those that pass."""
        wanted = max(FOUND_AT_LEAST, FOUND_FOR_ONE * count)
        return self._vectors.near(directions.cpu().numpy().astype(np.float32), wanted, passing)

    def _read(self, rows: Rows) -> Iterator[Tokens]:
        """[Ret] of these photos, so many at a time as are compared at once."""
        return (Tokens.of_ret(self.of(rows[part])) for part in _slices(len(rows)))

    def _centred(self, rows: Rows) -> torch.Tensor:
        return F.normalize(self.of(rows).float(), dim=1) - self.mean


def _slices(count: int) -> list[slice]:
    return [slice(start, start + RET_BATCH) for start in range(0, count, RET_BATCH)]


def _joined(scored: Iterable[torch.Tensor]) -> Scores:
    """The scores (1, m) of several parts as one (p,)."""
    return np.concatenate([np.empty(0, np.float32), *(part[0].numpy() for part in scored)])
