"""The prior of a photo: how near it lies to what people draw of trained things, whatever the sketch at hand shows."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

# Of the log-mean-exp: higher values are nearer to the maximum over the prototypes, lower ones to the mean.
SHARPNESS = 7.0


class Prior(nn.Module):
    """What a photo's scores lose because sketches of trained things lie near it in any case.

    Training pulls sketches towards the photos of trained things, so sketches of new things fall near those photos, too,
    and photos of new things drown in a large gallery. With c_k the cosine of the photo's [Ret] and prototype k of the
    training sketches,

        prior = log(mean_k exp(SHARPNESS c_k)) / SHARPNESS - level.

    The idea is that of calibrated stacking (Chao et al., ECCV 2016), for photos in the place of classes.

    Attributes:
        prototypes: (k, d) L2-normalised [Ret] of training sketches, or means of some that lie together.
        level: the mean over training and other photos, so that scores keep their range.
        ret_weight: by how much cosines of [Ret] are lowered for a prior of 1.
        relation_weight: by how much relation logits are lowered for a prior of 1.
    """

    def __init__(self, prototypes: int, width: int) -> None:
        super().__init__()
        self.prototypes: torch.Tensor
        self.level: torch.Tensor
        self.ret_weight: torch.Tensor
        self.relation_weight: torch.Tensor
        self.register_buffer("prototypes", torch.zeros(prototypes, width))
        for name in ("level", "ret_weight", "relation_weight"):
            self.register_buffer(name, torch.zeros(()))

    def forward(self, ret: torch.Tensor) -> torch.Tensor:
        """[Ret] of photos (n, d), any scale -> (n,) float32 priors."""
        cosines = F.normalize(ret.float(), dim=-1) @ self.prototypes.float().T
        mean = torch.logsumexp(SHARPNESS * cosines, dim=-1) - math.log(len(self.prototypes))
        return mean / SHARPNESS - self.level
