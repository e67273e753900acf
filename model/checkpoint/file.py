"""Checkpoints: safetensors files that carry their network's configuration and calibration."""

from __future__ import annotations

import hashlib
import importlib.resources
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from model.errors import ModelError
from model.network import NETWORKS, Calibration, Network, RetNetwork, as_zse
from model.terminal import expanded

FORMAT = "sketch-search"
VERSION = 2
# Entries of the metadata that describe the network; all others are notes for people.
DESCRIPTION = frozenset({"format", "version", "kind", "config", "calibration"})
# Checkpoints of this kind, which are the oldest, do not name it.
_FIRST_KIND = Network.kind


def default_checkpoint(explicit: str | Path | None = None) -> Path:
    """The path of the named checkpoint, else of the one that comes with the package.

    Raises ModelError, saying what to do, where it does not exist.
    """
    if explicit is not None:
        path = expanded(explicit)
        if not path.is_file():
            raise ModelError(f"there is no checkpoint at {path}; name a .safetensors file")
        return path
    embedded = Path(str(importlib.resources.files("weights") / "default.safetensors"))
    if not embedded.is_file():
        raise ModelError(
            "no checkpoint given and none comes with this installation; name one with --weights FILE or SBIR_WEIGHTS "
            "(sketch-search model init makes one from a pretrained ViT, sketch-search model convert from a released "
            "file)"
        )
    return embedded


def save_checkpoint(network: RetNetwork, path: Path, notes: Mapping[str, str] | None = None) -> None:
    """Writes a checkpoint atomically: the tensors in their precision, configuration and calibration in the metadata.

    ``notes``: further entries of the metadata, free text by name. Raises ModelError where it cannot be written.
    """
    metadata = {
        **(notes or {}),
        "format": FORMAT,
        "version": str(VERSION),
        "config": network.config.to_json(),
        "calibration": network.calibration.to_json(),
    }
    if network.kind != _FIRST_KIND:
        metadata["kind"] = network.kind
    partial = path.with_name(path.name + ".partial")
    try:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
        save_file(tensors, partial, metadata=metadata)
        partial.chmod(0o644)  # the library lets only the owner read it, but services often run as another user
        os.replace(partial, path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be written ({error}); name a folder that exists and has room") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a checkpoint. Raises ModelError, saying what to do, for a file that is none of this project."""
    if not path.is_file():
        raise ModelError(f"there is no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is not a safetensors file ({error}); a released .pth file is turned into one by "
            "sketch-search model convert"
        ) from error
    if metadata.get("format") != FORMAT or "config" not in metadata:
        raise ModelError(
            f"{path} is a safetensors file without this project's configuration; "
            "sketch-search model init makes a checkpoint from a backbone's weights"
        )
    if (version := metadata.get("version")) != str(VERSION):
        advice = "make or download it anew" if version == "1" else "install a newer sketch-search"
        raise ModelError(f"{path} has checkpoint version {version}; this program reads {VERSION}: {advice}")
    return metadata


def load_network(path: Path) -> RetNetwork:
    """The network stored at ``path``, in float32 and evaluation mode, on the CPU.

    Every network is built here; the metadata says which kind it is (``model.network.NETWORKS``).

    Raises ModelError, saying what to do, for a file that is missing, damaged or no checkpoint.
    """
    metadata = read_metadata(path)
    kind = NETWORKS.get(metadata.get("kind", _FIRST_KIND))
    if kind is None:
        raise ModelError(
            f"{path} holds a network of the kind {metadata['kind']!r}, which this version does not know; "
            "install a newer sketch-search"
        )
    config, calibration = kind.read_config(metadata["config"]), Calibration.from_json(metadata.get("calibration", ""))
    with torch.device("meta"):
        network = kind(config, calibration)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (no mapping)
        network.load_state_dict(tensors, strict=True, assign=True)
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{path} does not hold the tensors its configuration asks for: {reason}") from error
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise ModelError(f"{path} is damaged: {broken[0]} holds values that are not finite; use another checkpoint")
    return network.requires_grad_(False).eval()


def load_zse_network(path: Path) -> Network:
    """As ``load_network``, for what only networks of ZSE-SBIR can do. Raises ModelError for one of another kind."""
    return as_zse(load_network(path))


def file_sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
