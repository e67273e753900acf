"""Semantic anchors: the word vectors of the training classes, and the class means of photos (section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from model.errors import ModelError
from model.network import Anchor


@dataclass(frozen=True)
class WordAnchors:
    """Anchors of words.

    Attributes:
        vectors: (c, d) float32, of each training class.
        neighbours: (c, k, d), the words nearest to it in the whole vocabulary; k = 0 for none.
    """

    vectors: torch.Tensor
    neighbours: torch.Tensor

    def drawn(self, share: float, generator: torch.Generator) -> torch.Tensor:
        """(c, d): the vectors, each replaced by one of its neighbours with the probability ``share`` (section 3.5)."""
        classes, count = self.neighbours.shape[:2]
        if not count:
            return self.vectors
        chosen = torch.randint(count, (classes,), generator=generator)
        swapped = torch.rand(classes, generator=generator) < share
        return torch.where(swapped[:, None], self.neighbours[torch.arange(classes), chosen], self.vectors)


@dataclass(frozen=True)
class VisualAnchors:
    """Anchors of photos, as the pretrained network sees them.

    Attributes:
        means, deviations: (c, d) float32, of the features of each class's photos, number by number. The deviation of a
            class with one photo is 0.
    """

    means: torch.Tensor
    deviations: torch.Tensor

    @staticmethod
    def of_features(features: torch.Tensor, rows: tuple[torch.Tensor, ...]) -> VisualAnchors:
        """The anchors of classes. features: (n, d), of all photos; rows: those of each class."""
        of_class = [features[found] for found in rows]
        return VisualAnchors(
            torch.stack([found.mean(dim=0) for found in of_class]),
            torch.stack([found.std(dim=0, correction=0) for found in of_class]),
        )

    def drawn(self, generator: torch.Generator) -> torch.Tensor:
        """(c, d): a sample of each class's normal distribution (section 3.5)."""
        return self.means + self.deviations * torch.randn(self.means.shape, generator=generator)


@dataclass(frozen=True)
class SemanticAnchors:
    """The anchors that a recipe uses; None for the others."""

    word: WordAnchors | None
    visual: VisualAnchors | None

    def drawn(self, share: float, randomised: bool, generator: torch.Generator) -> dict[Anchor, torch.Tensor]:
        """The anchors of one step, (c, d) each, in the order of ``ANCHORS``.

        share: of words that are replaced by a neighbour, where anchors are ``randomised``.
        """
        found: dict[Anchor, torch.Tensor] = {}
        if self.word is not None:
            found["word"] = self.word.drawn(share, generator) if randomised else self.word.vectors
        if self.visual is not None:
            found["visual"] = self.visual.drawn(generator) if randomised else self.visual.means
        return found


def similarities(anchors: torch.Tensor) -> torch.Tensor:
    """(c, d) anchors -> (c, c), their cosines: the matrix A of eq. 2."""
    directions = F.normalize(anchors, dim=1)
    return directions @ directions.T


def widened(anchors: torch.Tensor, units: int) -> torch.Tensor:
    """(c, d) anchors -> (c, units), with zeros behind, which keeps all cosines. Raises ModelError where d is larger."""
    if anchors.shape[1] > units:
        raise ModelError(
            f"anchors of {anchors.shape[1]} numbers do not fit into {units} units; set units in the recipe's [network]"
        )
    return F.pad(anchors, (0, units - anchors.shape[1]))
