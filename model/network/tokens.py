"""Holds encoded images as tensors; see ``model.engine.Tokens``, which holds them as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tokens:
    """A batch of one modality: features (b, n, d), [Ret] first; positions (b, n-1), cells ascending.

    summary: (b, e) of two-sided sketches. regions: (b, m, d), local [Ret] of 2 x 2 patches of photos, by rows.
    """

    features: torch.Tensor
    positions: torch.Tensor
    summary: torch.Tensor | None = None
    regions: torch.Tensor | None = None

    def __len__(self) -> int:
        return self.features.shape[0]

    def __getitem__(self, rows: slice | torch.Tensor | Sequence[int]) -> "Tokens":
        parts: dict[str, Any] = {name: None if part is None else part[rows] for name, part in vars(self).items()}
        return Tokens(**parts)

    @property
    def ret(self) -> torch.Tensor:
        """(b, d): the retrieval token of each image, not normalised."""
        return self.features[:, 0]

    @property
    def patches(self) -> torch.Tensor:
        return self.features[:, 1:]

    @staticmethod
    def of_ret(ret: torch.Tensor) -> "Tokens":
        """Makes tokens from retrieval tokens (b, d) alone."""
        return Tokens(ret.unsqueeze(1), torch.empty(len(ret), 0, dtype=torch.int64, device=ret.device))


def as_tensor(values: torch.Tensor | NDArray[Any], device: torch.device) -> torch.Tensor:
    """Returns a tensor, or a copy of an array, on a device."""
    # An array may lie in memory that must not be written, and PyTorch warns about tensors that share it.
    return (values if isinstance(values, torch.Tensor) else torch.tensor(values)).to(device)
