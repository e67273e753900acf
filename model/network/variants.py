"""Variants of a sketch: the drawing as others might have drawn it. The mean of their [Ret] is surer than one alone.

Their kinds and their order were chosen on the validation classes, by a network that had not seen these.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from model.network.tokens import Tokens

#: As many variants as there are kinds.
MOST_VARIANTS = 3
_LARGER = 1.15
_TURN = math.radians(10)
_PEN = 3


def sketch_variants(sketch: torch.Tensor, count: int) -> torch.Tensor:
    """A prepared sketch (1, 3, H, W) -> its first ``count`` variants (count, 3, H, W), of 1 to MOST_VARIANTS.

    The first is the sketch itself; the second is larger by 15%, and what is outside then, some 2% of a long sketch at
    each end, is cut off; the third is mirrored, drawn with a thicker pen and
    turned by 10 degrees.
    """
    # Sampling gives zeros outside: so paper, the greatest value of each channel, is zero meanwhile.
    paper = sketch.amax(dim=(2, 3), keepdim=True)
    ink = sketch - paper
    variants = [sketch]
    if count > 1:
        variants.append(_moved(ink, [[1 / _LARGER, 0.0, 0.0], [0.0, 1 / _LARGER, 0.0]]) + paper)
    if count > 2:
        cos, sin = math.cos(_TURN), math.sin(_TURN)
        thick = -F.max_pool2d(-ink.flip(-1), _PEN, stride=1, padding=_PEN // 2)
        variants.append(_moved(thick, [[cos, sin, 0.0], [-sin, cos, 0.0]]) + paper)
    return torch.cat(variants)


def seen_together(variants: Tokens) -> Tokens:
    """The tokens of all variants of one sketch -> those of the first, whose [Ret] has the mean of all directions.

    Returns a batch of one. Its [Ret] keeps its length. A sketch without further variants stays as it is, bit for bit.
    """
    if len(variants) == 1:
        return variants
    first = variants[:1]
    mean = F.normalize(variants.ret, dim=-1).mean(dim=0, keepdim=True)
    ret = F.normalize(mean, dim=-1) * first.ret.norm(dim=-1, keepdim=True)
    return Tokens(torch.cat([ret.unsqueeze(1), first.patches], dim=1), first.positions)


def _moved(ink: torch.Tensor, to_source: list[list[float]]) -> torch.Tensor:
    """Ink (1, 3, H, W) after an affine map, which is given from the result's coordinates (-1 to 1) to the source's."""
    matrix = torch.tensor([to_source], dtype=ink.dtype, device=ink.device)
    grid = F.affine_grid(matrix, list(ink.shape), align_corners=False)
    return F.grid_sample(ink, grid, padding_mode="zeros", align_corners=False)
