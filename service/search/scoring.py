"""The second stage: score the chosen photos, each by itself, as far as the time allows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from service.errors import NotReady
from service.search.first_stage import Candidates, joined
from service.search.gallery import Gallery
from service.search.parts import QueryParts
from service.search.plan import Plan
from service.search.ranking import Rows, Scores
from service.search.stopwatch import Stopwatch


@dataclass(frozen=True)
class Scored:
    """Photos and their scores.

    Attributes:
        rows: (m,) photos. scores: (m,) float32, higher is better.
        complete: False where the budget was spent before all candidates were scored.
    """

    rows: Rows
    scores: Scores
    complete: bool = True

    def __post_init__(self) -> None:
        """Raises NotReady where a score is no number, which no answer could hold."""
        if not np.isfinite(self.scores).all():
            raise NotReady(
                "The network gives scores that are no numbers: the checkpoint or the index is damaged. Take another "
                "checkpoint, or run `sketch-search index verify`."
            )


def score_candidates(
    scorer: Gallery, parts: QueryParts, candidates: Candidates, plan: Plan, watch: Stopwatch
) -> Scored:
    """The candidates' scores by the plan's method: all of them, or one portion after another until time is up.

    The first portion is always scored.
    """
    if plan.budget_ms is None:
        # In one go, since the matcher pads its last chunk; by row, which is how they lie in the files.
        rows = np.sort(joined(candidates.portions))
        return Scored(rows, scorer.scores(parts, rows, plan.method))
    done: list[Rows] = []
    scores: list[Scores] = [np.empty(0, np.float32)]
    for portion in candidates.portions:
        if done and watch.has_passed(plan.budget_ms):
            break
        done.append(portion)
        scores.append(scorer.scores(parts, portion, plan.method))
    return Scored(joined(done), np.concatenate(scores), len(done) == len(candidates.portions))
