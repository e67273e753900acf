"""What options of several commands mean."""

from __future__ import annotations

import os
from pathlib import Path


def chosen_weights(weights: Path | None) -> Path | str | None:
    """The checkpoint named by the option, else by SBIR_WEIGHTS; None where neither names one."""
    return weights or os.environ.get("SBIR_WEIGHTS") or None
