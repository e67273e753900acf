"""Likeness of photos: the kinds that they fall into, how much they look like some of them, and near duplicates.

A sketch says too little to be sure of: twenty pigs may be shown where a dog was drawn, while the dogs come right after
them. So a page of kinds shows each of them once. The photos are compared with each other, not with the sketch, because
how similar two photos are is far more certain.

[Ret] says what a picture shows, and two photos of one thing may be nearer than a photo and its reduced copy. So it only
finds pairs that are worth comparing; patch tokens and their places decide whether they are one picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from model.network import Tokens
from model.ranking.diffusion import centred

# Cosine of two centred [Ret] above which a photo is of the kind of the other. Measured in a gallery of 12,890 photos of
# everything, with sketches of classes held back from the network: the right kind was among the first 20 kinds for 0.81
# of the sketches, and a right photo among the first 20 photos for 0.64. It is no threshold of diffusion, above which
# photos share scores little by little: here a photo is in a kind or not.
ALIKE = 0.45


def kinds_of(ret: torch.Tensor, mean: torch.Tensor, threshold: float = ALIKE) -> torch.Tensor:
    """The kind of each photo of a ranking.

    Let r_i be the normalised [Ret] of the i-th photo minus ``mean``, normalised again. Down the ranking, photo i joins
    the first kind whose first photo j has r_i . r_j above the threshold. If there is none, it begins a kind.

    Args:
        ret: (p, d) retrieval tokens of the photos, best first.
        mean: (d,) of the normalised [Ret] of the whole gallery. The mean of the ranking itself would hide what
            its photos have in common, which is what makes them a kind.
        threshold: cosine above which two photos are alike.

    Returns (p,) int64 on the CPU: kinds are numbered from 0, in the order of their first photos.
    """
    directions = centred(ret, mean).cpu()
    # In numpy, whose calls on a few hundred values take less time than PyTorch's.
    alike = (directions @ directions.T > threshold).numpy()
    kinds = np.full(len(directions), -1, np.int64)
    kind = 0
    # Kind by kind is the same as photo by photo: the next photo without a kind is like no first photo before it.
    for first in range(len(directions)):
        if kinds[first] >= 0:
            continue
        joining = alike[first] & (kinds < 0)
        # A photo that is exactly the mean is like no photo, but of a kind all the same.
        joining[first] = True
        kinds[joining] = kind
        kind += 1
    return torch.from_numpy(kinds)


# Below this distance to the mean a photo has no direction: it is like no photo.
_SAME = 1e-6


def likeness_to(examples: torch.Tensor, ret: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """How much photos look like the most similar one of some examples: the highest cosine of their centred [Ret].

    Args:
        examples, ret: (e, d) and (p, d) retrieval tokens, at least one example.
        mean: (d,) as for ``kinds_of``.

    Returns (p,) float32 on the CPU, -1 to 1.
    """
    rests = [F.normalize(some.float(), dim=1) - mean for some in (ret, examples)]
    photos, others = (F.normalize(rest * (rest.norm(dim=1, keepdim=True) > _SAME), dim=1) for rest in rests)
    return (photos @ others.T).max(dim=1).values.clamp(-1, 1).cpu()


# Cosine of two [Ret] above which a pair is compared, and how many photos before it each photo is compared with: a copy
# is nearer to its original than 98 of 100 other photos are.
LOOK = 0.8
LOOKED_AT = 3
# Two pictures are one from this sameness on. A new default network needs it measured again: to this one photos are more
# alike than to the one before, for which it was 0.78.
SAME = 0.82
# Networks without patch tokens compare the cosine of [Ret] with this: far fewer copies are found.
SAME_BY_RET = 0.97
# So many cells of the patch grid may a detail have moved.
_MOVED = 1
# Pairs whose tokens are compared at a time: some 30 MiB with the default network.
_PAIRS = 128


def pairs_to_compare(ret: torch.Tensor) -> torch.Tensor:
    """The pairs of a ranking that may be near duplicates: each photo with the most similar ones before it.

    ret: (p, d) retrieval tokens, best first.

    Returns (m, 2) int64 on the CPU: places of a photo and of an earlier one, from 0. In the order of the first, and for
    one photo in that of falling cosine. All cosines are above LOOK.
    """
    directions = F.normalize(ret.float(), dim=1).cpu()
    cosines = torch.tril(directions @ directions.T, diagonal=-1)
    values, places = cosines.topk(min(LOOKED_AT, len(cosines)), dim=1)
    later, column = torch.nonzero(values > LOOK, as_tuple=True)
    return torch.stack([later, places[later, column]], dim=1)


def sameness(tokens: Tokens, pairs: torch.Tensor, grid: int) -> torch.Tensor:
    """Measures how much of the pictures of each pair is the same, in the same places.

    A patch token has the cosine of the token of the other picture that is most like it among those at most one cell of
    the patch grid away, and 0 where there is none or it is negative. The result is the mean of all of them, for either
    picture, and of both. Without patch tokens it is 1 where the cosine of [Ret] is above SAME_BY_RET, else 0.

    tokens: of photos. pairs: (m, 2) int64, which of them are compared. grid: cells in a row of the patch grid.

    Returns (m,) float32 on the CPU, 0 to 1.
    """
    parts = [torch.empty(0)]
    for start in range(0, len(pairs), _PAIRS):
        batch = pairs[start : start + _PAIRS]
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

    Returns (count,) int64: places in the ranking, from 0. No place is later than the photo's own.
    """
    firsts = np.arange(count)
    for photo, earlier in duplicates:
        if photo >= own and firsts[photo] == photo:
            firsts[photo] = firsts[earlier]
    return torch.from_numpy(firsts)
