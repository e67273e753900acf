"""What the configurations of networks with one vector for each picture have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from model.network.config import Modality
from model.network.json_fields import from_json, to_json


@dataclass(frozen=True)
class OneVectorConfig:
    """A base without fields, so that the fields of a configuration are those of its own class."""

    @property
    def released_preprocessing(self) -> bool:
        """Whether sketches are cropped as for released ZSE-SBIR networks: never."""
        return False

    def token_count(self, modality: Modality) -> int:
        """How many tokens an encoded picture has: its vector alone."""
        return 1

    def to_json(self) -> str:
        """As stored in a checkpoint."""
        return to_json(self)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ModelError for unknown or missing fields: a newer or damaged checkpoint."""
        return from_json(cls, text, "configuration")
