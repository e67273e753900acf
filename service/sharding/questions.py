"""What a search asks of the shards: the best photos of each, scores of some photos, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from indexer import PhotoEntry, PhotoFilter, UnknownPhoto
from model import Tokens
from model.ranking import ScoredBy, led_by_word, named
from service.search import QueryParts, Rows, Scores, Word, WordLead, best_first, word_scores
from service.sharding.question import Question
from service.sharding.sent import SentMask, SentTokens, to_tensor
from service.sharding.shard import Shard

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Found:
    """Photos of a shard that were looked for.

    Attributes:
        rows: (m,) ascending. scores: (m,) float32 by what they were looked for. ret: (m, d) float32, their [Ret].
    """

    rows: Rows
    scores: Scores
    ret: Vectors


@dataclass(frozen=True)
class SentParts:
    """A query as it is compared with photos: ``QueryParts`` as arrays."""

    sketch: SentTokens
    clip: Vectors | None

    @staticmethod
    def of(parts: QueryParts, *, ret_only: bool = False) -> SentParts:
        """These parts; ``ret_only`` where nothing else of the sketch is read."""
        sketch = Tokens.of_ret(parts.sketch.ret) if ret_only else parts.sketch
        return SentParts(SentTokens.of(sketch), parts.clip)

    def parts(self, device: torch.device) -> QueryParts:
        """The parts on a device."""
        return QueryParts(self.sketch.tokens(device), self.clip)


@dataclass(frozen=True)
class SketchLead:
    """A word that leads [Ret]. best_ret: the best score by [Ret] of a photo of any shard that may be found."""

    word: WordLead
    best_ret: float


@dataclass(frozen=True)
class NearSketch(Question[Found]):
    """The ``count`` best photos by [Ret], or by CLIP, of those that pass; see ``Gallery.near_sketch``."""

    parts: SentParts
    method: ScoredBy
    count: int
    passing: SentMask | None
    lead: SketchLead | None = None

    def answer(self, shard: Shard) -> Found:
        """The best of this shard, with their scores by [Ret] or CLIP."""
        parts, passing = self.parts.parts(shard.device), None if self.passing is None else self.passing.mask()
        method: ScoredBy = "clip" if self.method == "clip" else "ret"
        near = shard.scorer.near_sketch(parts, method, self.count, passing)
        rows = shard.rows(passing) if near is None else near
        if self.lead is not None and near is not None:
            by_word = shard.scorer.near_word(self.lead.word.word, self.count, passing)
            rows = rows if by_word is None else np.union1d(rows, by_word)
        scores = shard.scorer.scores(parts, rows, method)
        by = scores if self.lead is None else _led(shard, rows, scores, self.lead)
        return _best(shard, rows, scores, by, self.count)


def _led(shard: Shard, rows: Rows, scores: Scores, lead: SketchLead) -> Scores:
    """Scores by [Ret] led by a word, as where all photos of all shards are together."""
    by_word = word_scores(shard.scorer, lead.word.word, rows)
    support = named(torch.from_numpy(by_word), torch.tensor(lead.word.best))
    # One more, which is the best of all by [Ret] and shows nothing of the word: what leads is compared with the best.
    with_best = torch.from_numpy(np.append(scores, np.float32(lead.best_ret)))
    return led_by_word(with_best, torch.cat([support, torch.zeros(1)]), "ret")[:-1].numpy()


@dataclass(frozen=True)
class NearPhotos(Question[Found]):
    """The ``count`` photos that look most like one of the examples; see ``Gallery.near_photos``.

    examples: (e, d) [Ret]. mean: (d,) of all photos of all shards.
    """

    examples: Vectors
    mean: Vectors
    count: int
    passing: SentMask | None

    def answer(self, shard: Shard) -> Found:
        """Those of this shard, with their likeness."""
        examples, mean = (to_tensor(array, shard.device) for array in (self.examples, self.mean))
        passing = None if self.passing is None else self.passing.mask()
        rows = shard.near_photos(examples, mean, self.count, passing)
        scores = shard.likeness(examples, mean, rows)
        return _best(shard, rows, scores, scores, self.count)


@dataclass(frozen=True)
class NearWord(Question[Found]):
    """The ``count`` photos that show most of what a word names; see ``Gallery.near_word``."""

    word: Word
    count: int
    passing: SentMask | None

    def answer(self, shard: Shard) -> Found:
        """Those of this shard, with their scores by the word."""
        passing = None if self.passing is None else self.passing.mask()
        near = shard.scorer.near_word(self.word, self.count, passing)
        rows = shard.rows(passing) if near is None else near
        scores = word_scores(shard.scorer, self.word, rows)
        return _best(shard, rows, scores, scores, self.count)


def _best(shard: Shard, rows: Rows, scores: Scores, by: Scores, count: int) -> Found:
    chosen = np.sort(best_first(shard.scorer.ids[rows], by, count))
    return Found(rows[chosen], scores[chosen], shard.scorer.ret(rows[chosen]).cpu().numpy())


@dataclass(frozen=True)
class RetOf(Question[Vectors]):
    """(m, d): [Ret] of these photos."""

    rows: Rows

    def answer(self, shard: Shard) -> Vectors:
        """As they are kept, not normalised."""
        return shard.scorer.ret(self.rows).cpu().numpy()


@dataclass(frozen=True)
class ScoresOf(Question[Scores]):
    """(m,): the scores of these photos by a method."""

    parts: SentParts
    rows: Rows
    method: ScoredBy

    def answer(self, shard: Shard) -> Scores:
        """The tokens that they are taken of stay where they are."""
        return shard.scorer.scores(self.parts.parts(shard.device), self.rows, self.method)


@dataclass(frozen=True)
class WordScoresOf(Question[Scores]):
    """(m,): how much these photos show what a word names."""

    word: Word
    rows: Rows

    def answer(self, shard: Shard) -> Scores:
        """By the vocabulary, or by CLIP."""
        return word_scores(shard.scorer, self.word, self.rows)


@dataclass(frozen=True)
class CentroidScores(Question[Scores]):
    """(c,): the query against the centroids of all clusters of the shard."""

    parts: SentParts
    method: ScoredBy

    def answer(self, shard: Shard) -> Scores:
        """By cluster."""
        return shard.scorer.centroid_scores(self.parts.parts(shard.device), self.method)


@dataclass(frozen=True)
class LikenessOfAll(Question[Scores]):
    """(p,): how much all photos of the shard are like the most similar example; attributes as of ``NearPhotos``."""

    examples: Vectors
    mean: Vectors

    def answer(self, shard: Shard) -> Scores:
        """By row."""
        examples, mean = (to_tensor(array, shard.device) for array in (self.examples, self.mean))
        return shard.likeness(examples, mean, shard.rows(None))


@dataclass(frozen=True)
class Leaving(Question[SentMask]):
    """(p,): the photos that leave with unliked ones; see ``Shard.leaving``."""

    unliked: Vectors
    liked: Vectors
    mean: Vectors

    def answer(self, shard: Shard) -> SentMask:
        """Without regard to which photos were named: their own rows are the asker's to set."""
        unliked, liked, mean = (to_tensor(array, shard.device) for array in (self.unliked, self.liked, self.mean))
        return SentMask.of(shard.leaving(unliked, liked, mean))


@dataclass(frozen=True)
class Passing(Question[SentMask]):
    """(p,): whether a photo passes a filter."""

    wanted: PhotoFilter

    def answer(self, shard: Shard) -> SentMask:
        """By row."""
        return SentMask.of(shard.scorer.passing(self.wanted))


@dataclass(frozen=True)
class TokensOf(Question[SentTokens]):
    """The tokens of these photos: for near duplicates only, which are found by comparing photos of any two shards."""

    rows: Rows

    def answer(self, shard: Shard) -> SentTokens:
        """As they are read."""
        return SentTokens.of(shard.scorer.tokens(self.rows))


@dataclass(frozen=True)
class Entries(Question[tuple[PhotoEntry, ...]]):
    """What the shard knows of these photos."""

    rows: Rows

    def answer(self, shard: Shard) -> tuple[PhotoEntry, ...]:
        """In their order; clusters are counted in the shard."""
        return shard.scorer.entries(self.rows)


@dataclass(frozen=True)
class RowsOfIds(Question[Rows]):
    """(m,): where the photos are that files with these ids belong to; -1 for those that are in other shards."""

    ids: tuple[int, ...]

    def answer(self, shard: Shard) -> Rows:
        """In their order."""
        return np.array([self._row(shard, photo) for photo in self.ids], np.int64)

    @staticmethod
    def _row(shard: Shard, photo: int) -> int:
        try:
            return shard.scorer.row_of(shard.index.photo(photo))
        except UnknownPhoto:
            return -1


@dataclass(frozen=True)
class FileOf(Question[bytes]):
    """The bytes that were indexed as a photo of this shard."""

    id: int

    def answer(self, shard: Shard) -> bytes:
        """Raises UnknownPhoto and PhotoUnavailable."""
        return shard.index.open_photo(self.id)


@dataclass(frozen=True)
class PartOf(Question[bytes]):
    """Some of these bytes, from a file of that size."""

    id: int
    size: int
    start: int
    count: int

    def answer(self, shard: Shard) -> bytes:
        """Raises UnknownPhoto and PhotoUnavailable."""
        return shard.index.part_of_photo(self.id, self.size, self.start, self.count)
