"""Diffusion: photos that look alike lend each other their scores (``model.ranking``)."""

from __future__ import annotations

import numpy as np
import torch

from model import Matcher
from model.ranking import ScoredBy
from service.search.first_stage import Shortlist
from service.search.gallery import Gallery
from service.search.ranking import NO_ROWS
from service.search.scoring import Scored


def with_estimates(
    scorer: Gallery, matcher: Matcher, scored: Scored, shortlist: Shortlist | None, method: ScoredBy
) -> Scored:
    """All photos that the diffusion ranks, in the order of their ids.

    The photos of the shortlist that were not scored are among them, with scores that are estimated.
    """
    others = NO_ROWS if shortlist is None else np.setdiff1d(shortlist.rows, scored.rows)
    rows = np.concatenate([scored.rows, others])
    # By id, since the order of a sum decides its last bit.
    order = scorer.ids[rows].argsort()
    rows = rows[order]
    scores = np.concatenate([scored.scores, np.zeros(len(others), np.float32)])[order]
    if shortlist is not None and len(others):
        known, distances = torch.from_numpy(order < len(scored.rows)), torch.from_numpy(-shortlist.ret_scores[rows])
        scores = matcher.estimate(torch.from_numpy(scores), known, distances, scorer.ret(rows), method).numpy()
    return Scored(rows, scores, scored.complete)


def diffuse(scorer: Gallery, matcher: Matcher, scored: Scored, method: ScoredBy) -> Scored:
    """What the scores become when all these photos lend each other theirs."""
    if not len(scored.rows):
        return scored
    after = matcher.diffuse(torch.from_numpy(scored.scores)[None], scorer.ret(scored.rows), method)
    return Scored(scored.rows, after[0].numpy(), scored.complete)
