"""Likeness: how much photos of a gallery look like some of them, by [Ret]."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from model.ranking.kinds import ALIKE, mean_direction

# Photos that are compared at a time: some 12 MiB with the default network.
_BATCH = 1 << 14
# Below this distance to the mean a photo has no direction.
_SAME = 1e-6


class Likeness:
    """Compares photos of one gallery by the cosines of their centred [Ret], those of ``model.ranking.kinds``.

    A second copy of all [Ret], centred, would take as much memory as the first. So two numbers for each photo are kept.
    With r_i = R_i / |R_i| and the mean m of all r_i, the cosine of photos i and j is

        c_j . (r_i - m) / |r_i - m| = (c_j . R_i) / (|R_i| |r_i - m|) - (c_j . m) / |r_i - m|,

    where c_j is r_j - m, normalised.

    Attributes:
        mean: (d,) float32, as ``mean_direction`` gives it.
    """

    def __init__(self, ret: torch.Tensor, mean: torch.Tensor | None = None) -> None:
        """ret: (p, d) retrieval tokens, kept and not copied: of all photos of the gallery, or with ``mean`` of some."""
        self._ret = ret
        self.mean = mean_direction(ret) if mean is None else mean
        scales, shifts = [ret.new_empty(0, dtype=torch.float32)], [ret.new_empty(0, dtype=torch.float32)]
        for start in range(0, len(ret), _BATCH):
            part = ret[start : start + _BATCH].float()
            lengths = part.norm(dim=1).clamp(min=1e-12)
            distances = (part / lengths[:, None] - self.mean).norm(dim=1)
            # A photo that is exactly the mean is like no photo.
            shift = torch.where(distances > _SAME, 1 / distances, 0.0)
            shifts.append(shift)
            scales.append(shift / lengths)
        self._scale, self._shift = torch.cat(scales), torch.cat(shifts)

    @torch.inference_mode()
    def to(
        self, examples: torch.Tensor, rows: torch.Tensor | None = None, *, others: torch.Tensor | None = None
    ) -> torch.Tensor:
        """How much photos are like the most similar one of ``examples`` and ``others``.

        Args:
            examples: (e,) int64, rows of photos. rows: (m,) int64, those that are compared with them; None for all.
            others: (o, d) retrieval tokens of photos that are not in the gallery; None for none.

        Returns:
            (m,) float32 on the CPU, cosines from -1 to 1; -1 where there are no examples.
        """
        count = len(self._ret) if rows is None else len(rows)
        if not len(examples) and others is None:
            return torch.full((count,), -1.0)
        of_examples = (
            self._ret[examples].float() * self._scale[examples, None] - self.mean * self._shift[examples, None]
        )
        if others is not None:
            centred = F.normalize(others.float(), dim=1) - self.mean
            distances = centred.norm(dim=1, keepdim=True)
            directions = torch.where(distances > _SAME, centred / distances.clamp(min=_SAME), 0.0)
            of_examples = torch.cat([of_examples, directions])
        found = [torch.empty(0)]
        for start in range(0, count, _BATCH):
            part = slice(start, start + _BATCH) if rows is None else rows[start : start + _BATCH]
            along = self._ret[part].float() @ of_examples.T * self._scale[part, None]
            cosines = along - self._shift[part, None] * (of_examples @ self.mean)
            found.append(cosines.max(dim=1).values.cpu())
        return torch.cat(found).clamp_(-1, 1)

    def leaving(
        self, unliked: torch.Tensor, liked: torch.Tensor, *, others: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(p,) bool on the CPU: the photos that are unliked or of the kind of one that is.

        A photo stays if it looks more like a liked one: who likes a white cat, and not a black one, still wants cats.

        Args:
            unliked, liked: (u,) and (l,) int64, rows of photos, none of them in both.
            others: (o, d) retrieval tokens of liked photos that are not in the gallery; None for none.
        """
        to_unliked = self.to(unliked)
        gone = (to_unliked > ALIKE) & (to_unliked >= self.to(liked, others=others))
        gone[unliked] = True
        gone[liked] = False
        return gone
