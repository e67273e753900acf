"""Encoded images: the retrieval token, then patch tokens with their positions on the patch grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Tokens:
    """A batch of encoded images of one modality.

    Attributes:
        features: (b, n, d) floating point; row 0 is [Ret], rows 1..n-1 are patch tokens.
        positions: (b, n-1) int64, strictly ascending in each row; patch token i+1 sits at cell ``positions[:, i]``
            of the patch grid, counted row by row from the top left.
    """

    features: torch.Tensor
    positions: torch.Tensor

    def __post_init__(self) -> None:
        if self.features.ndim != 3 or self.positions.shape != (self.features.shape[0], self.features.shape[1] - 1):
            raise ValueError(
                f"tokens need features (b, n, d) and positions (b, n-1), not {tuple(self.features.shape)} "
                f"and {tuple(self.positions.shape)}"
            )

    def __len__(self) -> int:
        return self.features.shape[0]

    def __getitem__(self, rows: slice | torch.Tensor | Sequence[int]) -> Tokens:
        """The images at ``rows``, in that order; the result is a batch, too."""
        return Tokens(self.features[rows], self.positions[rows])

    @property
    def ret(self) -> torch.Tensor:
        """(b, d): the retrieval token of each image, not normalised."""
        return self.features[:, 0]

    @property
    def patches(self) -> torch.Tensor:
        """(b, n-1, d): the patch tokens."""
        return self.features[:, 1:]

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Tokens:
        """The same tokens on another device or in another precision; positions stay int64."""
        return Tokens(self.features.to(device=device, dtype=dtype), self.positions.to(device=device))

    @staticmethod
    def of_ret(ret: torch.Tensor) -> Tokens:
        """Tokens with n = 1 from retrieval tokens (b, d).

        That is all that the method "ret" reads, and all that a network with one global vector gives.
        """
        return Tokens(ret.unsqueeze(1), torch.empty(len(ret), 0, dtype=torch.int64, device=ret.device))

    @staticmethod
    def cat(parts: Sequence[Tokens]) -> Tokens:
        """All images of ``parts`` in order. Every part must keep the same number of tokens."""
        return Tokens(torch.cat([p.features for p in parts]), torch.cat([p.positions for p in parts]))
