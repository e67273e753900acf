"""Reads checkpoints of two-sided networks, and their photo sides, as arrays of numpy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from model.checkpoint import find_photo_side, read_metadata
from model.errors import ModelError
from model.network import Calibration, ModelConfig, Network, from_json

#: The ending of the names of scales in a photo side.
SCALE = ".scale"


@dataclass(frozen=True)
class TwoSidedFiles:
    """A checkpoint of a two-sided network.

    Attributes:
        config, calibration: from its metadata.
        arrays: float32, by the names of the state of ``model.network.Network``, without the photo side.
        photo_side: the arrays of its photo side as they are stored: matrices of blocks int8, all others float16.
    """

    config: ModelConfig
    calibration: Calibration
    arrays: dict[str, NDArray[np.float32]]
    photo_side: dict[str, NDArray[Any]]


def read_two_sided(path: Path) -> TwoSidedFiles:
    """Reads a checkpoint with a two-sided encoder, and its photo side.

    Raises ModelError, saying what to do, for a file that is damaged, or of another kind of network.
    """
    metadata = read_metadata(path)
    if metadata.get("kind", Network.kind) != Network.kind:
        raise ModelError(f"{path} holds a network of the kind {metadata['kind']!r}, which only PyTorch runs")
    config = from_json(ModelConfig, metadata["config"], "the checkpoint's configuration")
    if not config.photo_side:
        raise ModelError(f"{path} holds {config.name}, which has no photo side and is run by PyTorch alone")
    calibration = from_json(Calibration, metadata.get("calibration", ""), "the checkpoint's calibration")
    arrays = {name: array.astype(np.float32) for name, array in _arrays(path).items()}
    if broken := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
        raise ModelError(f"{path} is damaged: {broken[0]} holds values that are not finite; use another checkpoint")
    return TwoSidedFiles(config, calibration, arrays, _arrays(find_photo_side(config.photo_side, path)))


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be read ({error}); use another checkpoint") from error
