"""Words: a word of the query finds the photos that show what it names, and leads the ranking.

Where the index was clustered by CLIP, its text tower reads any text. Else words are those of the checkpoint's
vocabulary.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from model import Matcher
from model.ranking import ScoredBy, scores_of, support_of
from model.words import UnknownWord
from service.errors import BadSearch
from service.schemas import SearchQuery
from service.search.pool import Pool
from service.search.ranking import Scores, best_first
from service.search.scorer import GalleryScorer, Rows
from service.towers import ClipVectors, TextVector

# Photos whose [Ret] stands for a word where there is neither sketch nor liked photo: the best ones by the word. On
# ordinary photos, 1 to 10 of them found more than the word's scores alone, and differed by less than chance.
EXAMPLES = 5
# Support of a word falls by e for so much less of its score than the best photo has. This and LEAD were chosen on every
# other one of 1,000 ordinary photos, with sketches that were not trained on. With WIDTH from 3 to 6, or LEAD from 0.7
# to 0.9, a sketch and a word together find more than each of them alone; with 2 and 0.7 the word alone found more.
# All of that was the vocabulary; scores by CLIP are logits, too, and taken alike.
WIDTH = 4.0
# How much of the support is the word's.
LEAD = 0.8

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
    """How much the photos show what a word names.

    With w_i the score of photo i by the word, its support is exp((w_i - max_j w_j) / WIDTH), over the j of the pool.

    scores: (p,) of all photos, from ``word_scores``.
    """
    best = scores[pool.rows].max(initial=-np.inf)
    # Photos that the pool does not have may be above it.
    support: WordSupport = np.exp(np.minimum(scores - best, 0) / np.float32(WIDTH))
    return support


def examples(scorer: GalleryScorer, words: WordSupport, pool: Pool) -> Rows:
    """The photos whose [Ret] stands for a word: the best of the pool by it."""
    return best_by_word(scorer, words, pool.rows, EXAMPLES)


def best_by_word(scorer: GalleryScorer, words: WordSupport, rows: Rows, count: int) -> Rows:
    """The best of these photos by a word, best first."""
    return rows[best_first(scorer.ids[rows], words[rows], count)]


def led_by_word(scores: Scores, words: WordSupport, method: ScoredBy) -> Scores:
    """Photos' scores (m,) led by a word with this support (m,).

    With s_i the support of photo i by its score (``model.ranking.support``), divided by the highest one, and w_i its
    support by the word, its new support is (1 - LEAD) s_i + LEAD w_i. The new scores are in the range of ``method``.
    """
    if not len(scores):
        return scores
    found = torch.from_numpy(scores)
    best = found.max()
    support = support_of(found, best, method)
    support = support / support.max().clamp(min=torch.finfo(torch.float32).tiny)
    mixed = (1 - LEAD) * support + LEAD * torch.from_numpy(words)
    # + 0.0 makes 0 of -0.
    return (scores_of(mixed, best, method) + 0.0).numpy()
