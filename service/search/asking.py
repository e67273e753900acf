"""Asking which of two photos is closer to the one that somebody remembers (``model.ranking``)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from model.ranking import ASKED_OF, LIKELY, answered, next_question
from service.schemas import SearchQuery
from service.search.gallery import Gallery
from service.search.ranking import Rows
from service.search.scoring import Scored


def asked_about(query: SearchQuery, scorer: Gallery) -> Rows:
    """(k, 2): the closer and the farther photo of each answer. Raises UnknownPhoto: an id is no photo's."""
    return _rows(query.comparisons, scorer)


def skipped(query: SearchQuery, scorer: Gallery) -> Rows:
    """(k, 2): the photos of each question that was not answered. Raises UnknownPhoto: an id is no photo's."""
    return _rows(query.skipped, scorer)


def _rows(pairs: Iterable[tuple[int, int]], scorer: Gallery) -> Rows:
    return scorer.rows_of_ids(photo for pair in pairs for photo in pair).reshape(-1, 2)


def with_answers(scorer: Gallery, scored: Scored, answers: Rows) -> Scored:
    """The same photos, with scores by [Ret] that the answers have changed."""
    if not len(answers):
        return scored
    photos, places = np.unique(answers, return_inverse=True)
    likeness = _likeness(scorer, scored.rows, photos)[:, torch.from_numpy(places.reshape(-1, 2))]
    scores = answered(torch.from_numpy(scored.scores), likeness[:, :, 0], likeness[:, :, 1])
    return replace(scored, scores=scores.numpy())


def question(scorer: Gallery, scored: Scored, order: NDArray[np.int64], asked: Rows) -> tuple[int, int] | None:
    """The ids of the two photos to ask about next; None where there are not two that were not asked about.

    Args:
        order: the indices of the photos of ``scored``, best first.
        asked: the photos that were asked about.
    """
    likely = order[:LIKELY]
    fresh = order[~np.isin(scored.rows[order], asked)][:ASKED_OF]
    scores = torch.from_numpy(scored.scores[likely])
    chosen = next_question(scores, _likeness(scorer, scored.rows[likely], scored.rows[fresh]))
    return None if chosen is None else (_id(scorer, scored, fresh, chosen[0]), _id(scorer, scored, fresh, chosen[1]))


def _id(scorer: Gallery, scored: Scored, fresh: NDArray[np.int64], place: int) -> int:
    return int(scorer.ids[scored.rows[fresh[place]]])


def _likeness(scorer: Gallery, rows: Rows, others: Rows) -> torch.Tensor:
    """(m, k): how much m photos look like each of k others, as cosines of their centred [Ret]."""
    columns = [torch.from_numpy(scorer.gallery_ret.likeness(others[n : n + 1], rows)) for n in range(len(others))]
    return torch.stack(columns, dim=1) if columns else torch.empty(len(rows), 0)
