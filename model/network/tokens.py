"""Holds encoded images as tensors: retrieval token and patch tokens."""

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
        summary: (b, e), a two-sided encoder's summary of whole sketches, from which guesses are made: it has more than
            [Ret] keeps. None for photos, and for other encoders.
    """

    features: torch.Tensor
    positions: torch.Tensor
    summary: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if self.features.ndim != 3 or self.positions.shape != (self.features.shape[0], self.features.shape[1] - 1):
            raise ValueError(
                f"tokens need features (b, n, d) and positions (b, n-1), not {tuple(self.features.shape)} "
                f"and {tuple(self.positions.shape)}"
            )

    def __len__(self) -> int:
        return self.features.shape[0]

    def __getitem__(self, rows: slice | torch.Tensor | Sequence[int]) -> Tokens:
        """Returns the images at ``rows``, in this order; the result is a batch, too."""
        return Tokens(self.features[rows], self.positions[rows], None if self.summary is None else self.summary[rows])

    @property
    def ret(self) -> torch.Tensor:
        """(b, d): the retrieval token of each image, not normalised."""
        return self.features[:, 0]

    @property
    def guessed_from(self) -> torch.Tensor:
        """(b, e): the summaries, or [Ret] if the encoder gives no summaries."""
        return self.ret if self.summary is None else self.summary

    @property
    def patches(self) -> torch.Tensor:
        """(b, n-1, d): the patch tokens."""
        return self.features[:, 1:]

    @property
    def without_patches(self) -> Tokens:
        """Returns the part that comparing by [Ret] reads."""
        return Tokens(self.features[:, :1], self.positions[:, :0], self.summary)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Tokens:
        """Moves the tokens to another device or precision; positions stay int64."""
        summary = None if self.summary is None else self.summary.to(device=device, dtype=dtype)
        return Tokens(self.features.to(device=device, dtype=dtype), self.positions.to(device=device), summary)

    @staticmethod
    def of_ret(ret: torch.Tensor) -> Tokens:
        """Makes tokens with n = 1 from retrieval tokens (b, d).

        This is all that the method "ret" reads, and all that a network with one global vector gives.
        """
        return Tokens(ret.unsqueeze(1), torch.empty(len(ret), 0, dtype=torch.int64, device=ret.device))

    @staticmethod
    def cat(parts: Sequence[Tokens]) -> Tokens:
        """Joins all images of ``parts`` in order. Every part must keep the same number of tokens."""
        summaries = [p.summary for p in parts if p.summary is not None]
        summary = torch.cat(summaries) if summaries else None
        return Tokens(torch.cat([p.features for p in parts]), torch.cat([p.positions for p in parts]), summary)
