"""Photos scored in batches, and the order of what comes out."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from model import Matcher, Tokens
from model.config import Method

Ids = NDArray[np.int64]
Scores = NDArray[np.float32]

# Bounds what is copied into memory at a time: 256 photos of the largest network are some 75 MiB.
BATCH = 256


class Scoring:
    """Scores photos with one sketch, in batches that run across clusters.

    The matcher pads its last chunk, so scoring many small clusters one by one would mostly score padding.
    """

    def __init__(self, matcher: Matcher, sketch: Tokens, method: Method) -> None:
        """``sketch``: a batch of one."""
        self._matcher = matcher
        self._sketch = sketch
        self._method: Method = method
        self._waiting: list[Tokens] = []
        self._ret: list[torch.Tensor] = []
        self._ids: list[Ids] = [np.empty(0, dtype=np.int64)]
        self._scores: list[Scores] = [np.empty(0, dtype=np.float32)]

    def add(self, ids: Ids, photos: Tokens) -> None:
        """Have these photos scored, by the time of ``flush`` at the latest. ids: (p,)."""
        self._ids.append(ids)
        self._ret.append(photos.ret)
        for start in range(0, len(photos), BATCH):
            self._waiting.append(photos[start : start + BATCH])
            if sum(map(len, self._waiting)) >= BATCH:
                self.flush()

    def flush(self) -> None:
        """Score all that were added."""
        if self._waiting:
            photos = self._waiting[0] if len(self._waiting) == 1 else Tokens.cat(self._waiting)
            self._waiting = []
            self._scores.append(self._matcher.scores(self._sketch, photos, self._method)[0].numpy())

    def finish(self) -> tuple[Ids, Scores]:
        """Ids and scores of all photos, in the order they were added: (p,) int64 and (p,) float32."""
        self.flush()
        return np.concatenate(self._ids), np.concatenate(self._scores)

    def diffused(self, ids: Ids, scores: Scores) -> tuple[Ids, Scores]:
        """What ``finish`` gave, by id, and with scores diffused over all photos that were added."""
        if not len(ids):
            return ids, scores
        order = ids.argsort()
        ret = torch.cat(self._ret)[torch.from_numpy(order)]
        spread = self._matcher.diffuse(torch.from_numpy(scores[order])[None], ret, self._method)
        return ids[order], spread[0].numpy()


def best_first(ids: Ids, scores: Scores) -> NDArray[np.int64]:
    """The indices in the order of falling score; equal scores by id."""
    return np.lexsort((ids, -scores))
