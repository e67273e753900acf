"""Finds checkpoints and reads them as numpy arrays, with the photo side of two-sided networks."""

import hashlib
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from sketch_search import weights
from sketch_search.model.engine.config import Calibration, ModelConfig, TwoSidedConfig, ZseConfig, from_json
from sketch_search.model.errors import ModelError
from sketch_search.model.files import MARK
from sketch_search.model.terminal import expand_home

# The names of checkpoints in the package.
EMBEDDED = ("default", "zse")
FORMAT = MARK
VERSION = 2
# Entries of the metadata that describe the network; all others are notes for people.
DESCRIPTION = frozenset({"format", "version", "kind", "config", "calibration", "classes"})
#: The kind of ZSE-SBIR's network. Its checkpoints, the oldest ones, need not contain the kind.
ZSE = "zse"
PHOTO_SIDE_NAME = "photo-side.safetensors"
PHOTO_SIDE_KIND = "photo-side"
# The most bytes of a photo side: far more than those of the largest ViT.
_MOST_BYTES = 8 << 30
_OUT_OF_MEMORY = re.compile("allocate memory|bad_alloc|PosixThread")
# The suffix of the names of scales in a photo side.
SCALE = ".scale"


#: The folder of the weights included in the package.
PACKAGED = Path(weights.__file__).parent


def default_checkpoint(explicit: str | Path | None = None) -> Path:
    """Returns the path of a checkpoint, by path or as one of EMBEDDED. Raises ModelError if there is none."""
    name = "default" if explicit is None else str(explicit)
    if explicit is not None and name not in EMBEDDED:
        path = expand_home(explicit)
        if not path.is_file():
            raise ModelError(f"there is no checkpoint at {path}; name a .safetensors file")
        return path
    embedded = PACKAGED / f"{name}.safetensors"
    if not embedded.is_file():
        remedy = "name a file with --weights FILE or SKETCH_SEARCH_WEIGHTS"
        raise ModelError(f"this installation has no checkpoint {name!r}; {remedy}")
    return embedded


def read_metadata(path: Path) -> dict[str, str]:
    """Reads the metadata of a checkpoint. Raises ModelError."""
    if not path.is_file():
        raise ModelError(f"there is no checkpoint at {path}")
    try:
        with safe_open(path, framework="np") as file:
            metadata: dict[str, str] = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        check_memory(error)
        remedy = "convert a released .pth file with sketch-search model convert"
        raise ModelError(f"{path} is not a safetensors file ({error}); {remedy}") from error
    if metadata.get("format") != FORMAT or "config" not in metadata:
        raise ModelError(
            f"{path} is a safetensors file without this project's configuration; name a checkpoint, or train one from "
            "a backbone's weights with python -m training train"
        )
    if (version := metadata.get("version")) != str(VERSION):
        advice = "make or download it again" if version == "1" else "install a newer sketch-search"
        raise ModelError(f"{path} has checkpoint version {version}; this program reads {VERSION}: {advice}")
    return metadata


def is_checkpoint(path: Path) -> bool:
    """Returns True if the file is a checkpoint that this version reads."""
    try:
        return bool(read_metadata(path))
    except ModelError:
        return False


def check_memory(error: Exception) -> None:
    """Raises MemoryError if memory or threads ran out, for which the libraries have no specific error."""
    if _OUT_OF_MEMORY.search(str(error)):
        raise MemoryError(str(error)) from error


def find_photo_side(sha256: str, checkpoint: Path) -> Path:
    """Finds the photo side with this hash, beside the checkpoint or in the package. Raises ModelError."""
    for path in (checkpoint.with_name(PHOTO_SIDE_NAME), PACKAGED / PHOTO_SIDE_NAME):
        if path.is_file() and path.stat().st_size <= _MOST_BYTES and file_sha256(path) == sha256:
            return path
    raise ModelError(
        f"{checkpoint} needs the photo side {sha256[:12]}..., which is neither beside it nor in this installation; "
        f"put the {PHOTO_SIDE_NAME} it was trained with into {checkpoint.parent}"
    )


def file_sha256(path: Path) -> str:
    """Computes the SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class SeenClasses:
    """Classes trained and chosen on, whose figures are not zero-shot; pretraining does not count, as in the papers."""

    trained: frozenset[str]
    chosen: frozenset[str] = frozenset()

    def __or__(self, other: "SeenClasses | None") -> "SeenClasses":
        return self if other is None else SeenClasses(self.trained | other.trained, self.chosen | other.chosen)

    def note(self) -> dict[str, str]:
        """Makes the entry of a checkpoint's metadata."""
        return {"classes": json.dumps({"trained": sorted(self.trained), "chosen": sorted(self.chosen)})}


def seen_classes(path: Path) -> SeenClasses | None:
    """Reads the classes that a checkpoint has seen; None if unknown, as for released ones. Raises ModelError."""
    noted = read_metadata(path).get("classes")
    if noted is None:
        return None
    classes = json.loads(noted)
    return SeenClasses(frozenset(classes["trained"]), frozenset(classes["chosen"]))


@dataclass(frozen=True)
class CheckpointFiles:
    """A checkpoint of a network on a photo side, read from ``path``: its arrays by ``Network``'s names, and those of
    its photo side as they are stored: matrices of blocks int8, all others float16.
    """

    path: Path
    config: TwoSidedConfig | ZseConfig
    calibration: Calibration
    arrays: dict[str, NDArray[np.float32]]
    photo_side: dict[str, NDArray[Any]]


def config_on_photo_side(path: Path) -> TwoSidedConfig | ZseConfig | None:
    """Reads the configuration of a network on a photo side; None for another network. Raises ModelError."""
    metadata = read_metadata(path)
    if metadata.get("kind", ZSE) != ZSE:
        return None
    config = _read_config(metadata["config"])
    return config if isinstance(config, TwoSidedConfig | ZseConfig) and config.photo_side else None


# A start reads the configuration to find the graphs, and again with the weights; checking its words takes 15 ms.
@lru_cache(maxsize=1)
def _read_config(text: str) -> ModelConfig:
    return from_json(ModelConfig, text, "the checkpoint's configuration")


def read_files(path: Path) -> CheckpointFiles:
    """Reads a checkpoint of a network on a photo side, and this photo side. Raises ModelError."""
    metadata, config = read_metadata(path), config_on_photo_side(path)
    if config is None:
        raise ModelError(f"{path} holds a network without a photo side, which only PyTorch runs")
    calibration = from_json(Calibration, metadata.get("calibration", ""), "the checkpoint's calibration")
    arrays = {name: array.astype(np.float32) for name, array in read_arrays(path).items()}
    if broken := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
        raise ModelError(f"{path} is damaged: {broken[0]} holds values that are not finite; use another checkpoint")
    return CheckpointFiles(path, config, calibration, arrays, read_arrays(find_photo_side(config.photo_side, path)))


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be read ({error}); use another checkpoint") from error
