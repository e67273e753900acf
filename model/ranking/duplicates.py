"""Near duplicates: one picture in other sizes, encodings and cuts, or taken again a moment later.

[Ret] says what a picture shows, and two photos of one thing may be nearer than a photo and its reduced copy. So it only
finds pairs that are worth comparing; whether they are one picture is decided by their patch tokens and where these are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from model.network import Tokens

# Cosine of two [Ret] above which a pair is compared, and how many photos before it each photo is compared with: a copy
# is nearer to its original than 98 of 100 other photos are.
LOOK = 0.8
LOOKED_AT = 3
# How much of two pictures must be the same: see docs/using.md for what was measured. A new default network needs it
# measured again. To this one photos are more alike than to the one before, for which it was 0.78.
SAME = 0.82
# The same for networks without patch tokens, by the cosine of [Ret]: far fewer copies are found.
SAME_BY_RET = 0.97
# So many cells of the patch grid may a detail have moved.
_MOVED = 1
# Pairs whose tokens are compared at a time: some 30 MiB with the default network.
_BATCH = 128


def pairs_to_compare(ret: torch.Tensor) -> torch.Tensor:
    """The pairs of a ranking that may be near duplicates: each photo with the most similar ones before it.

    Args:
        ret: (p, d) retrieval tokens, best first.

    Returns:
        (m, 2) int64 on the CPU: places of a photo and of an earlier one, from 0. In the order of the first, and for one
        photo in that of falling cosine. All cosines are above LOOK.
    """
    directions = F.normalize(ret.float(), dim=1).cpu()
    cosines = torch.tril(directions @ directions.T, diagonal=-1)
    values, places = cosines.topk(min(LOOKED_AT, len(cosines)), dim=1)
    later, column = torch.nonzero(values > LOOK, as_tuple=True)
    return torch.stack([later, places[later, column]], dim=1)


def sameness(tokens: Tokens, pairs: torch.Tensor, grid: int) -> torch.Tensor:
    """How much of the pictures of each pair is the same, in the same places.

    A patch token has the cosine of the token of the other picture that is most like it among those at most one cell of
    the patch grid away, and 0 where there is none or it is negative. The result is the mean of all of them, for either
    picture, and of both. Without patch tokens it is 1 where the cosine of [Ret] is above SAME_BY_RET, else 0.

    Args:
        tokens: of photos. pairs: (m, 2) int64, which of them are compared. grid: cells in a row of the patch grid.

    Returns:
        (m,) float32 on the CPU, 0 to 1.
    """
    parts = [torch.empty(0)]
    for start in range(0, len(pairs), _BATCH):
        batch = pairs[start : start + _BATCH]
        first, second = tokens[batch[:, 0]], tokens[batch[:, 1]]
        if tokens.positions.shape[1]:
            parts.append(_sameness(first, second, grid).cpu())
        else:
            parts.append((F.cosine_similarity(first.ret.float(), second.ret.float()) > SAME_BY_RET).float().cpu())
    return torch.cat(parts)


def _sameness(first: Tokens, second: Tokens, grid: int) -> torch.Tensor:
    patches, others = (F.normalize(tokens.patches.float(), dim=2) for tokens in (first, second))
    cosines = (patches @ others.transpose(1, 2)).clamp(min=0)
    here, there = first.positions[:, :, None], second.positions[:, None]
    near = ((here // grid - there // grid).abs() <= _MOVED) & ((here % grid - there % grid).abs() <= _MOVED)
    cosines = cosines * near
    return (cosines.amax(dim=2).mean(dim=1) + cosines.amax(dim=1).mean(dim=1)) / 2


def first_of_same(count: int, duplicates: Sequence[tuple[int, int]], own: int = 0) -> torch.Tensor:
    """The photo of a ranking that stands for each photo: the first of its near duplicates, or itself.

    A photo that is a near duplicate of several goes to the first pair that is given for it; and where the other one is
    a duplicate itself, to what that one folds into. So a burst, in which each photo is like the next, is one.

    Args:
        count: photos in the ranking. duplicates: places of a photo and an earlier one, in the order of the first.
        own: the first so many photos stand for themselves, whatever they look like.

    Returns:
        (count,) int64: places in the ranking, from 0. No place is later than the photo's own.
    """
    firsts = np.arange(count)
    for photo, earlier in duplicates:
        if photo >= own and firsts[photo] == photo:
            firsts[photo] = firsts[earlier]
    return torch.from_numpy(firsts)
