"""An index made by a network that knows words."""

from __future__ import annotations

from pathlib import Path

import model
from indexer import build
from service.settings import Settings
from tests.networks import tiny_checkpoint
from tests.service.small_gallery import CLUSTERS


def wordy(
    settings: Settings, photos: Path, folder: Path, words: tuple[tuple[str, ...], ...], embedder: str = "ret"
) -> Settings:
    """Those of a server of such an index, which is made in ``folder``: of these photos, clustered by this embedder."""
    weights = tiny_checkpoint(folder / "tiny.safetensors", words=words, diffusion=0.2)
    build([photos], folder / "index", model.load(weights), clusters=CLUSTERS, embedder=embedder)
    return settings.model_copy(update={"index": folder / "index", "weights": weights})
