"""Words: a word of the query finds the photos that show what it names, and leads the ranking.

Where the index was clustered by CLIP, its text tower reads any text. Else words are those of the checkpoint's
vocabulary.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from model import Matcher, ranking
from model.ranking import EXAMPLES, ScoredBy, named
from model.words import UnknownWord
from service.errors import BadSearch
from service.schemas import SearchQuery
from service.search.pool import Pool
from service.search.ranking import Scores, best_first
from service.search.scorer import GalleryScorer, Rows
from service.towers import ClipVectors, TextVector

#: How much photos show what the word names: (p,) float32 of all photos, from 0 to 1, which the best of the pool has.
WordSupport: TypeAlias = NDArray[np.float32]

#: A word of a query: its number in the checkpoint's vocabulary, or a text as CLIP has it.
Word: TypeAlias = int | TextVector


def word_of(query: SearchQuery, matcher: Matcher, clip: ClipVectors) -> Word | None:
    """The query's word, by CLIP where that can be had, else of the vocabulary; None where it has no word.

    Raises BadSearch where the checkpoint has no vocabulary either, and UnknownWord where that does not have the word.
    """
    if query.text is None or clip.text is not None:
        return clip.text
    if not matcher.words:
        why = "" if clip.refusal is None else f", and CLIP cannot read other words: {clip.refusal.rstrip('.')}"
        raise BadSearch(f"This checkpoint has no vocabulary{why}: leave text out.")
    try:
        return matcher.book.find(query.text)
    except UnknownWord as unknown:
        if clip.refusal is None:
            raise
        reason = f"CLIP cannot read other words: {clip.refusal}"
        raise UnknownWord(query.text.strip(), len(matcher.words), unknown.nearest, reason) from unknown


def word_scores(scorer: GalleryScorer, word: Word) -> Scores:
    """(p,) float32: how much each photo shows what a word names, as logits of the vocabulary or of CLIP."""
    return scorer.clip_scores(word.values) if isinstance(word, TextVector) else scorer.word_scores(word)


def word_support(scores: Scores, pool: Pool) -> WordSupport:
    """How much the photos show what a word names, compared with the best of the pool (``model.ranking.words``).

    scores: (p,) of all photos, from ``word_scores``.
    """
    best = scores[pool.rows].max(initial=-np.inf)
    support: WordSupport = named(torch.from_numpy(scores), torch.tensor(best)).numpy()
    return support


def examples(scorer: GalleryScorer, words: WordSupport, pool: Pool) -> Rows:
    """The photos whose [Ret] stands for a word: the best of the pool by it."""
    return best_by_word(scorer, words, pool.rows, EXAMPLES)


def best_by_word(scorer: GalleryScorer, words: WordSupport, rows: Rows, count: int) -> Rows:
    """The best of these photos by a word, best first."""
    return rows[best_first(scorer.ids[rows], words[rows], count)]


def led_by_word(scores: Scores, rows: Rows, words: WordSupport | None, method: ScoredBy) -> Scores:
    """The scores (m,) of these photos led by the query's word (``model.ranking.words``); as they are without a word."""
    if words is None:
        return scores
    return ranking.led_by_word(torch.from_numpy(scores), torch.from_numpy(words[rows]), method).numpy()
