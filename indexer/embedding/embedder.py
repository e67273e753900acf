"""What an embedder is, and the simplest one: the checkpoint's own [Ret]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from indexer.store import EmbedderEntry, normalised

Floats = npt.NDArray[np.float32]


class Embedder(Protocol):
    """Gives every photo a vector of unit length.

    Attributes:
        uses_pictures: whether ``prepare`` needs the whole picture; otherwise it may be reduced to the network's input.
    """

    uses_pictures: bool

    def prepare(self, image: Image.Image) -> torch.Tensor | None:
        """What ``embed`` needs of an RGB image, since the image itself is not kept. Several threads may call it."""

    def embed(self, inputs: Sequence[torch.Tensor | None], ret: Floats) -> Floats:
        """The photos' vectors (b, e) float32, L2-normalised.

        Args:
            inputs: what ``prepare`` gave of b photos. ret: the photos' [Ret] (b, d) float32.
        """


@dataclass(frozen=True)
class ChosenEmbedder:
    """An embedder that has been found.

    Attributes:
        entry: what the manifest says about it.
        load: reads its weights. It is called only where there are new photos, since without any the embedder is not
            needed. EmbedderUnavailable where the weights do not fit.
    """

    entry: EmbedderEntry
    load: Callable[[], Embedder]


class RetEmbedder:
    """Uses [Ret] of the encoding, which is computed anyway. It stands in where there is no CLIP."""

    uses_pictures = False

    def prepare(self, image: Image.Image) -> torch.Tensor | None:
        """None: the encoding has all that is needed."""
        return None

    def embed(self, inputs: Sequence[torch.Tensor | None], ret: Floats) -> Floats:
        """[Ret], L2-normalised."""
        return normalised(ret)
