"""The choices that were made for a trained network by measurement: methods of scoring, weights and thresholds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from model.errors import ModelError
from model.network.json_fields import from_json, to_json
from model.network.tokens import MOST_VARIANTS

Method = Literal["rn", "ret", "fused"]
METHODS: tuple[Method, ...] = ("rn", "ret", "fused")


@dataclass(frozen=True)
class Calibration:
    """Travels with the weights in the checkpoint's metadata, apart from the architecture (``ModelConfig``).

    Attributes:
        methods: the ways of scoring that were trained: "rn" by the relation network, "ret" by the distance of [Ret],
            "fused" by both.
        best_method: the one with the highest mAP@all on the validation classes; "auto" means it.
        fusion: weight of the [Ret] distance in "fused": logit(relation score) - fusion * distance; None without it.
        diffusion: cosine in [-1, 1) from which two photos lend each other their scores (``model.ranking.diffusion``);
            None where none was chosen, so that rankings cannot be diffused.
        variants: how many variants of a sketch are encoded unless the caller says otherwise, 1 to MOST_VARIANTS.

    Raises:
        ModelError: the values contradict each other.
    """

    methods: tuple[Method, ...] = ("ret",)
    best_method: Method = "ret"
    fusion: float | None = None
    diffusion: float | None = None
    variants: int = MOST_VARIANTS

    def __post_init__(self) -> None:
        problems = []
        if not self.methods or set(self.methods) - set(METHODS) or self.best_method not in self.methods:
            problems.append(f"methods {self.methods} must be some of {METHODS} and hold best_method")
        if "fused" in self.methods and self.fusion is None:
            problems.append('method "fused" needs a fusion weight')
        if self.fusion is not None and not math.isfinite(self.fusion):
            problems.append("fusion must be a finite number")
        if self.diffusion is not None and not -1 <= self.diffusion < 1:
            problems.append("diffusion must lie in [-1, 1)")
        if not 1 <= self.variants <= MOST_VARIANTS:
            problems.append(f"variants must be 1 to {MOST_VARIANTS}")
        if problems:
            raise ModelError("unusable calibration: " + "; ".join(problems))

    @property
    def relation_trained(self) -> bool:
        """True if the relation network was trained, so that its score means something."""
        return bool(set(self.methods) - {"ret"})

    def to_json(self) -> str:
        """As stored in a checkpoint."""
        return to_json(self)

    @staticmethod
    def from_json(text: str) -> Calibration:
        """Raises ModelError for unknown fields or unusable values: a newer or damaged checkpoint."""
        return from_json(Calibration, text, "calibration")


# For a network whose relation network is untrained: only [Ret] may be used for scores.
UNCALIBRATED = Calibration()
