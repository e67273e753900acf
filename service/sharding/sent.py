"""What goes between machines: arrays of numpy, in frozen dataclasses, which any process can read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model import Tokens


@dataclass(frozen=True)
class SentTokens:
    """Tokens of a batch of pictures: ``model.Tokens`` as arrays."""

    features: NDArray[Any]
    positions: NDArray[np.int64]

    @staticmethod
    def of(tokens: Tokens) -> SentTokens:
        """These tokens, from whatever device they are on."""
        return SentTokens(tokens.features.cpu().numpy(), tokens.positions.cpu().numpy())

    def tokens(self, device: torch.device) -> Tokens:
        """The tokens on a device."""
        return Tokens(to_tensor(self.features, device), to_tensor(self.positions, device))


def to_tensor(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """A copy as a tensor: what came from elsewhere may lie in memory that is not to be written."""
    return torch.from_numpy(np.array(array)).to(device)
