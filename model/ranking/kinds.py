"""Kinds: the photos of a ranking, grouped by look.

A sketch says too little to be sure of: twenty pigs may be shown where a dog was drawn, while the dogs come right after
them. So a page of kinds shows each of them once. The photos are compared with each other, not with the sketch, because
how similar two photos are is far more certain.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from model.ranking.diffusion import centred

# Cosine of two centred [Ret] above which a photo is of the kind of the other. Measured in a gallery of 12,890 photos of
# everything, with sketches of classes held back from the network: the right kind was among the first 20 kinds for 0.81
# of the sketches, and a right photo among the first 20 photos for 0.64. It is no threshold of diffusion, above which
# photos share scores little by little: here a photo is in a kind or not.
ALIKE = 0.45
# Photos whose directions are added up at a time: some 12 MiB with the default network.
_BATCH = 1 << 14


def mean_direction(ret: torch.Tensor) -> torch.Tensor:
    """(p, d) retrieval tokens of a gallery -> (d,) float32, the mean of them normalised; zeros without photos.

    It is what the photos of a gallery share, such as their style, and makes no two of them similar.
    """
    # In double precision, so that photos that are all the same have exactly themselves as their mean.
    total = torch.zeros(ret.shape[1], dtype=torch.float64, device=ret.device)
    for start in range(0, len(ret), _BATCH):
        total += F.normalize(ret[start : start + _BATCH].float(), dim=1).sum(dim=0, dtype=torch.float64)
    return (total / max(1, len(ret))).float()


def kinds_of(ret: torch.Tensor, mean: torch.Tensor, threshold: float = ALIKE) -> torch.Tensor:
    """The kind of each photo of a ranking.

    Let r_i be the normalised [Ret] of the i-th photo minus ``mean``, normalised again. Down the ranking, photo i joins
    the first kind whose first photo j has r_i . r_j above the threshold. If there is none, it begins a kind.

    Args:
        ret: (p, d) retrieval tokens of the photos, best first.
        mean: (d,) as ``mean_direction`` gives it for the whole gallery. The mean of the ranking itself would hide what
            its photos have in common, which is what makes them a kind.
        threshold: cosine above which two photos are alike.

    Returns:
        (p,) int64 on the CPU: kinds are numbered from 0, in the order of their first photos.
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
