"""Words: a word of the query finds the photos that show what it names, and leads the ranking.

Where the index was clustered by CLIP, its text tower reads any text. Else words are those of the checkpoint's
vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from model import Matcher, ranking
from model.ranking import EXAMPLES, SHORTLIST, ScoredBy, named
from model.words import UnknownWord
from service.errors import BadSearch
from service.schemas import SearchQuery
from service.search.gallery import Gallery, Pool, Word, WordLead
from service.search.ranking import Rows, Scores, best_first
from service.towers import ClipVectors, TextVector

# Photos that are looked for by a word in a large gallery: as many as a ranking has.
NEAR = SHORTLIST


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


@dataclass(frozen=True)
class WordSupport:
    """How much photos show what the word names, compared with the best of the pool, which has 1 (``model.ranking``).

    Attributes:
        of: of these photos, (m,) float32 from 0 to 1.
        near: photos of the pool among which its best ones are.
        lead: the word, and the score of the best of the pool.
    """

    of: Callable[[Rows], Scores]
    near: Rows
    lead: WordLead


def word_scores(scorer: Gallery, word: Word, rows: Rows | None = None) -> Scores:
    """(m,) float32: how much these photos, or all, show what a word names, as logits of the vocabulary or of CLIP."""
    return scorer.clip_scores(word.values, rows) if isinstance(word, TextVector) else scorer.word_scores(word, rows)


def word_support(scorer: Gallery, word: Word, pool: Pool, scores_of_all: Callable[[Word], Scores]) -> WordSupport:
    """The support of a word.

    scores_of_all: ``word_scores``, which may remember them. A large gallery asks for those of some photos only, but for
        texts as CLIP has them.
    """
    near = scorer.near_word(word, NEAR, pool.passing)
    if near is not None:
        best = float(word_scores(scorer, word, near).max(initial=-np.inf))
        return WordSupport(lambda rows: _named(word_scores(scorer, word, rows), best), near, WordLead(word, best))
    scores = scores_of_all(word)
    best = float(scores[pool.rows].max(initial=-np.inf))
    return WordSupport(_named(scores, best).__getitem__, pool.rows, WordLead(word, best))


def _named(scores: Scores, best: float) -> Scores:
    support: Scores = named(torch.from_numpy(scores), torch.tensor(best)).numpy()
    return support


def word_fits(words: WordSupport, pool: Pool) -> bool | None:
    """Whether a photo of the pool is likely to show what the word names; None where nobody knows.

    That is so for a word that CLIP read: its products with photos are compared, but do not say what photos show.
    """
    word, best = words.lead.word, words.lead.best
    return None if isinstance(word, TextVector) else ranking.fits(best, pool.count)


def examples(scorer: Gallery, words: WordSupport) -> Rows:
    """The photos whose [Ret] stands for a word: the best of the pool by it."""
    return best_by_word(scorer, words, EXAMPLES)


def best_by_word(scorer: Gallery, words: WordSupport, count: int) -> Rows:
    """The best photos of the pool by a word, best first."""
    return words.near[best_first(scorer.ids[words.near], words.of(words.near), count)]


def led_by_word(scores: Scores, rows: Rows, words: WordSupport | None, method: ScoredBy) -> Scores:
    """The scores (m,) of these photos led by the query's word (``model.ranking.words``); as they are without a word."""
    if words is None:
        return scores
    return ranking.led_by_word(torch.from_numpy(scores), torch.from_numpy(words.of(rows)), method).numpy()
