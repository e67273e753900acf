"""[Ret] of the photos of a gallery: all of them in memory, or in a large gallery on disk.

In memory every photo is compared with a query. A large gallery has an inverted file: the photos that it finds are
compared exactly, and no other one is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from indexer import Index, InvertedFile
from model import Matcher, Tokens
from model.ranking import ALIKE, Likeness
from service.search.ranking import Rows, Scores

Mask = NDArray[np.bool_]

# Photos whose [Ret] is compared at a time: some 12 MiB with the default network.
RET_BATCH = 1 << 14
# So many photos at most are read one by one, without the inverted file: where filters leave no more.
READ_UP_TO = 1 << 14
# The inverted file finds photos by the cosine alone. So many times as many are found as are wanted, and so many at
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


class RetOnThisMachine(GalleryRet, Protocol):
    """The same of an index on this machine."""

    def near(self, directions: torch.Tensor, count: int, passing: Mask | None) -> Rows | None:
        """Rows, ascending, among which are the ``count`` best by any of these directions (q, d), of those that pass.

        None where every photo is to be compared.
        """


class RetInMemory:
    """[Ret] of all photos, with their priors and what compares them: 780 bytes each with the default network."""

    def __init__(self, index: Index, matcher: Matcher) -> None:
        self._matcher = matcher
        self._ret = Tokens.of_ret(index.all_ret().to(matcher.device))
        self._priors = matcher.priors(self._ret)
        self._word_levels = matcher.word_levels(self._ret)
        self._likeness = Likeness(self._ret.ret)
        self.mean = self._likeness.mean

    def of(self, rows: Rows) -> torch.Tensor:
        """As in ``GalleryRet``."""
        return self._ret[torch.from_numpy(rows)].ret

    def scores(self, sketch: Tokens, rows: Rows) -> Scores:
        """As in ``GalleryRet``."""

        def score(part: slice | torch.Tensor) -> torch.Tensor:
            priors = None if self._priors is None else self._priors[part]
            return self._matcher.scores(sketch, self._ret[part], "ret", priors)

        return _joined(score(part) for part in _parts(rows, len(self._ret)))

    def word_scores(self, word: int, rows: Rows) -> Scores:
        """As in ``GalleryRet``."""

        def score(part: slice | torch.Tensor) -> torch.Tensor:
            levels = None if self._word_levels is None else self._word_levels[part]
            return self._matcher.word_scores(self._ret[part], [word], levels)

        return _joined(score(part) for part in _parts(rows, len(self._ret)))

    def likeness(self, examples: Rows, rows: Rows, others: torch.Tensor | None = None) -> Scores:
        """As in ``GalleryRet``."""
        of_rows = None if _are_all(rows, len(self._ret)) else torch.from_numpy(rows)
        return self._likeness.to(torch.from_numpy(examples), of_rows, others=others).numpy()

    def leaving(self, unliked: Rows, liked: Rows, others: torch.Tensor | None = None) -> Mask:
        """As in ``GalleryRet``."""
        return self._likeness.leaving(torch.from_numpy(unliked), torch.from_numpy(liked), others=others).numpy()

    def near(self, directions: torch.Tensor, count: int, passing: Mask | None) -> None:
        """As in ``RetOnThisMachine``: every photo is compared."""
        return


class RetOnDisk:
    """[Ret] of photos that are read when they are compared."""

    def __init__(self, index: Index, inverted: InvertedFile, matcher: Matcher) -> None:
        self._index = index
        self._inverted = inverted
        self._matcher = matcher
        sizes = torch.from_numpy(index.cluster_sizes).to(torch.float64)
        # The mean of the clusters' means.
        self.mean = (index.centroid_ret.to(torch.float64).T @ (sizes / sizes.sum().clamp(min=1))).float()
        self.mean = self.mean.to(matcher.device)

    def of(self, rows: Rows) -> torch.Tensor:
        """As in ``GalleryRet``."""
        return self._index.photo_ret(rows).to(self._matcher.device)

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
        count, photos = FOUND_AT_LEAST, len(self._index.ids)
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
        """As in ``RetOnThisMachine``."""
        if passing is not None and passing.sum() <= READ_UP_TO:
            return np.flatnonzero(passing)
        wanted = max(FOUND_AT_LEAST, FOUND_FOR_ONE * count)
        found = [self._inverted.nearest(one, wanted, passing) for one in directions.cpu().numpy().astype(np.float32)]
        return np.unique(np.concatenate([np.empty(0, np.int64), *found]))

    def _read(self, rows: Rows) -> Iterator[Tokens]:
        """[Ret] of these photos, so many at a time as are compared at once."""
        return (Tokens.of_ret(self.of(rows[part])) for part in _slices(len(rows)))

    def _centred(self, rows: Rows) -> torch.Tensor:
        return F.normalize(self.of(rows).float(), dim=1) - self.mean


def ret_of(index: Index, matcher: Matcher) -> RetOnThisMachine:
    """[Ret] of the photos of an index, where it is best kept."""
    if index.inverted is None or matcher.device.type != "cpu":
        return RetInMemory(index, matcher)
    return RetOnDisk(index, index.inverted, matcher)


def _slices(count: int) -> list[slice]:
    return [slice(start, start + RET_BATCH) for start in range(0, count, RET_BATCH)]


def _joined(scored: Iterable[torch.Tensor]) -> Scores:
    """The scores (1, m) of several parts as one (p,)."""
    return np.concatenate([np.empty(0, np.float32), *(part[0].numpy() for part in scored)])


def _are_all(rows: Rows, photos: int) -> bool:
    """Whether they are all ``photos``, in order."""
    return len(rows) == photos and bool((np.diff(rows, prepend=-1) == 1).all())


def _parts(rows: Rows, photos: int) -> list[slice | torch.Tensor]:
    """The rows in parts; slices, which need no copy, where they are all in order."""
    if _are_all(rows, photos):
        return list(_slices(photos))
    return [torch.from_numpy(rows[part]) for part in _slices(len(rows))]
