"""Diffusion: photos that look alike lend each other their scores (``model.ranking``)."""

from __future__ import annotations

import numpy as np
import torch

from model import Matcher
from model.network import Method
from service.search.first_stage import NO_ROWS, Shortlist
from service.search.scorer import GalleryScorer
from service.search.scoring import Scored


def diffuse(
    scorer: GalleryScorer, matcher: Matcher, scored: Scored, shortlist: Shortlist | None, method: Method
) -> Scored:
    """What the scores become when all these photos lend each other theirs, in the order of their ids.

    The photos of the shortlist that were not scored take part, too, with scores that are estimated first.
    """
    others = NO_ROWS if shortlist is None else np.setdiff1d(shortlist.rows, scored.rows)
    rows = np.concatenate([scored.rows, others])
    if not len(rows):
        return scored
    # By id, since the order of a sum decides its last bit.
    order = scorer.ids[rows].argsort()
    rows = rows[order]
    ret = scorer.ret(rows)
    before = torch.from_numpy(np.concatenate([scored.scores, np.zeros(len(others), np.float32)])[order])
    if shortlist is not None and len(others):
        known, distances = torch.from_numpy(order < len(scored.rows)), torch.from_numpy(-shortlist.ret_scores[rows])
        before = matcher.estimate(before, known, distances, ret, method)
    return Scored(rows, matcher.diffuse(before[None], ret, method)[0].numpy(), scored.complete)
