"""Encoded images: the retrieval token, then patch tokens with their positions on the patch grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Members:
    """The k patches of each image behind its pooled tokens (``model.network.pooling``).

    Attributes:
        cells: (b, k) int64, strictly ascending in each row: the patches' cells of the patch grid.
        groups: (b, k) int64: which patch token each patch went into, counted from 0 without [Ret].
    """

    cells: torch.Tensor
    groups: torch.Tensor

    def __post_init__(self) -> None:
        if self.cells.ndim != 2 or self.cells.shape != self.groups.shape:
            raise ValueError(
                f"members need cells and groups (b, k), not {tuple(self.cells.shape)} and {tuple(self.groups.shape)}"
            )

    def __getitem__(self, rows: slice | torch.Tensor | Sequence[int]) -> Members:
        """Those of the images at ``rows``, in that order."""
        return Members(self.cells[rows], self.groups[rows])

    def to(self, device: torch.device | str | None) -> Members:
        """The same on another device."""
        return Members(self.cells.to(device), self.groups.to(device))

    @staticmethod
    def cat(parts: Sequence[Members]) -> Members:
        """Those of all images of ``parts`` in order."""
        return Members(torch.cat([p.cells for p in parts]), torch.cat([p.groups for p in parts]))


@dataclass(frozen=True)
class Tokens:
    """A batch of encoded images of one modality.

    Attributes:
        features: (b, n, d) floating point; row 0 is [Ret], rows 1..n-1 are patch tokens.
        positions: (b, n-1) int64, strictly ascending in each row; patch token i+1 sits at cell ``positions[:, i]``
            of the patch grid, counted row by row from the top left. A pooled token sits at one of its patches.
        members: of pooled tokens, the patches that each stands for; None where each token is one patch's.
    """

    features: torch.Tensor
    positions: torch.Tensor
    members: Members | None = None

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
        return Tokens(self.features[rows], self.positions[rows], None if self.members is None else self.members[rows])

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
        members = None if self.members is None else self.members.to(device)
        return Tokens(self.features.to(device=device, dtype=dtype), self.positions.to(device=device), members)

    def unpooled(self) -> Tokens:
        """A token for each patch: that of the group it is in. The same tokens where they are not pooled."""
        if self.members is None:
            return self
        index = 1 + self.members.groups.unsqueeze(-1).expand(-1, -1, self.features.shape[2])
        return Tokens(torch.cat([self.features[:, :1], self.features.gather(1, index)], dim=1), self.members.cells)

    @staticmethod
    def of_ret(ret: torch.Tensor) -> Tokens:
        """Tokens with n = 1 from retrieval tokens (b, d).

        That is all that the method "ret" reads, and all that a network with one global vector gives.
        """
        return Tokens(ret.unsqueeze(1), torch.empty(len(ret), 0, dtype=torch.int64, device=ret.device))

    @staticmethod
    def cat(parts: Sequence[Tokens]) -> Tokens:
        """All images of ``parts`` in order. Every part must keep the same number of tokens, and all or none be pooled.

        Raises ValueError where some parts are pooled and others are not.
        """
        members = [part.members for part in parts if part.members is not None]
        if members and len(members) < len(parts):
            raise ValueError("tokens that are pooled cannot be put together with others")
        return Tokens(
            torch.cat([p.features for p in parts]),
            torch.cat([p.positions for p in parts]),
            Members.cat(members) if members else None,
        )
