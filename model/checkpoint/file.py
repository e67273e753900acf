"""Reads and writes checkpoints: safetensors files that carry their network's configuration and calibration.

A network with a two-sided encoder lies in two files: the checkpoint, and the photo side that several checkpoints share.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

import weights
from model.errors import ModelError
from model.network import NETWORKS, Calibration, ModelConfig, Network, RetNetwork, as_zse, from_json, to_json
from model.terminal import expanded

FORMAT = "sketch-search"
VERSION = 2
# Entries of the metadata that describe the network; all others are notes for people.
DESCRIPTION = frozenset({"format", "version", "kind", "config", "calibration"})
# Checkpoints of this kind, which are the oldest, do not name their kind.
_FIRST_KIND = Network.kind
#: In the state of a network, the names of the photo side's tensors begin with this.
PHOTO_SIDE = "encoder.photo_side."
NAME = "photo-side.safetensors"
_KIND = "photo-side"
# The ending of the names of scales. Matrices are stored as int8 with a scale for each row: 23 MB instead of 88.
_SCALE = ".scale"
_MOST = 127


def default_checkpoint(explicit: str | Path | None = None) -> Path:
    """Returns the path of the named checkpoint, else of the one that comes with the package.

    Raises ModelError, saying what to do, if it does not exist.
    """
    if explicit is not None:
        path = expanded(explicit)
        if not path.is_file():
            raise ModelError(f"there is no checkpoint at {path}; name a .safetensors file")
        return path
    embedded = Path(weights.__file__).with_name("default.safetensors")
    if not embedded.is_file():
        raise ModelError(
            "no checkpoint given and none comes with this installation; name one with --weights FILE or SBIR_WEIGHTS "
            "(sketch-search model init makes one from a pretrained ViT, sketch-search model convert from a released "
            "file)"
        )
    return embedded


def save_checkpoint(network: RetNetwork, path: Path, notes: Mapping[str, str] | None = None) -> None:
    """Writes a checkpoint atomically: the tensors in their precision, configuration and calibration in the metadata.

    ``notes``: further entries of the metadata, free text by name. Raises ModelError if it cannot be written.
    """
    metadata = {
        **(notes or {}),
        "format": FORMAT,
        "version": str(VERSION),
        "config": to_json(network.config),
        "calibration": to_json(network.calibration),
    }
    if network.kind != _FIRST_KIND:
        metadata["kind"] = network.kind
    tensors = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in network.state_dict().items()
        if not name.startswith(PHOTO_SIDE)
    }
    _write(tensors, path, metadata)


def _write(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Writes a safetensors file atomically. Raises ModelError if it cannot be written."""
    partial = path.with_name(path.name + ".partial")
    try:
        save_file(tensors, partial, metadata=metadata)
        partial.chmod(0o644)  # the library lets only the owner read it, but services often run as another user
        os.replace(partial, path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be written ({error}); name a folder that exists and has room") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def read_metadata(path: Path) -> dict[str, str]:
    """Reads the metadata of a checkpoint. Raises ModelError, saying what to do, if the file is no such checkpoint."""
    if not path.is_file():
        raise ModelError(f"there is no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        _check_memory(error)
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


def _check_memory(error: Exception) -> None:
    """Raises MemoryError if ``error`` means that memory ran out, for which the libraries have no type of their own."""
    if "allocate memory" in str(error):
        raise MemoryError(str(error)) from error


def load_network(path: Path) -> RetNetwork:
    """Loads the network stored at ``path``, in float32 and evaluation mode, on the CPU.

    The metadata says which kind of network it is (``model.network.NETWORKS``).

    Raises ModelError, saying what to do, for a file that is missing, damaged or no checkpoint; MemoryError.
    """
    metadata = read_metadata(path)
    kind = NETWORKS.get(metadata.get("kind", _FIRST_KIND))
    if kind is None:
        raise ModelError(
            f"{path} holds a network of the kind {metadata['kind']!r}, which this version does not know; "
            "install a newer sketch-search"
        )
    config = from_json(kind.config_kind, metadata["config"], "the checkpoint's configuration")
    calibration = from_json(Calibration, metadata.get("calibration", ""), "the checkpoint's calibration")
    with torch.device("meta"):
        network = kind(config, calibration)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (no mapping)
        # These values are checked before those of the photo side are added, which its hash identifies.
        broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
        if isinstance(config, ModelConfig) and config.photo_side:
            tensors |= photo_side_state(find_photo_side(config.photo_side, path))
        network.load_state_dict(tensors, strict=True, assign=True)
    except (SafetensorError, RuntimeError) as error:
        _check_memory(error)
        reason = " ".join(str(error).split())
        raise ModelError(f"{path} does not hold the tensors its configuration asks for: {reason}") from error
    if broken:
        raise ModelError(f"{path} is damaged: {broken[0]} holds values that are not finite; use another checkpoint")
    return network.requires_grad_(False).eval()


def load_zse_network(path: Path) -> Network:
    """Loads a network that must be one of ZSE-SBIR. Raises ModelError like ``load_network``, and for another kind."""
    return as_zse(load_network(path))


def average_checkpoints(sources: Sequence[Path], target: Path) -> None:
    """Writes the mean of the weights of several networks, which were trained from the same start with other seeds.

    Such a mean often finds more of what is new than each of them (Wortsman et al., Model soups, ICML 2022). Prior and
    calibration are those of the first. There is no vocabulary, because guesses are fitted to one network.

    Raises ModelError like ``load_zse_network``, and for checkpoints of different configurations.
    """
    networks = [load_zse_network(path) for path in sources]
    first = networks[0]
    plain = [network.prior_replaced(None).vocabulary_replaced(None) for network in networks]
    for network, path in zip(plain, sources, strict=True):
        if network.config != plain[0].config:
            raise ModelError(f"{path} and {sources[0]} have different configurations; average what was trained alike")
    states = [network.state_dict() for network in plain]
    mean = {name: torch.stack([state[name] for state in states]).mean(dim=0) for name in states[0]}
    plain[0].load_state_dict(mean)
    if first.config.photo_side:
        keep_photo_side(find_photo_side(first.config.photo_side, sources[0]), target)
    notes = {"origin": "the mean of " + ", ".join(file_sha256(path)[:12] for path in sources)}
    save_checkpoint(plain[0].prior_replaced(first.prior).half(), target, notes)


def save_photo_side(tensors: Mapping[str, torch.Tensor], path: Path, notes: Mapping[str, str] | None = None) -> str:
    """Writes the tensors of a `PhotoSide` atomically and returns the file's SHA-256.

    The matrices of the blocks become int8 with a float16 scale for each row, and all other tensors float16. notes:
    entries of the metadata.
    """
    stored: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if "vit." in name and tensor.ndim == 3:
            scale = (tensor.abs().amax(dim=-1) / _MOST).half().clamp(min=1e-7)
            stored[name] = (tensor / scale.float()[..., None]).round().clamp(-_MOST, _MOST).to(torch.int8)
            stored[name + _SCALE] = scale
        else:
            stored[name] = tensor.half().contiguous()
    # Several entries would be written in an order that changes, and with it the hash.
    _write(stored, path, {_KIND: json.dumps(dict(notes or {}), sort_keys=True)})
    return file_sha256(path)


def find_photo_side(sha256: str, checkpoint: Path) -> Path:
    """Finds the photo side with this hash: the file NAME beside the checkpoint, or the one that comes with the package.

    Raises ModelError, saying what to do, if neither has the hash.
    """
    packaged = Path(weights.__file__).with_name(NAME)
    for path in (checkpoint.with_name(NAME), packaged):
        if path.is_file() and file_sha256(path) == sha256:
            return path
    raise ModelError(
        f"{checkpoint} needs the photo side {sha256[:12]}..., which is neither beside it nor in this installation; "
        f"put the {NAME} that it was trained with into {checkpoint.parent}"
    )


def keep_photo_side(photo_side: Path, checkpoint: Path) -> None:
    """Copies a photo side beside a checkpoint that needs it, unless it is found there or in this installation.

    Raises ModelError if it cannot be written, or another photo side lies there.
    """
    try:
        find_photo_side(file_sha256(photo_side), checkpoint)
    except ModelError:
        beside = checkpoint.with_name(NAME)
        if beside.exists():
            raise
        try:
            shutil.copyfile(photo_side, beside)
        except OSError as error:
            raise ModelError(f"{beside} cannot be written ({error}); copy {photo_side} there") from error


def photo_side_state(path: Path) -> dict[str, torch.Tensor]:
    """Reads the tensors of a photo side, float32, by their names in the state of a network.

    Raises ModelError for a file that is damaged or no photo side.
    """
    try:
        with safe_open(path, framework="pt") as file:
            if _KIND not in (file.metadata() or {}):
                raise ModelError(f"{path} is no photo side")
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be read as a photo side ({error}); install sketch-search again") from error
    return {
        PHOTO_SIDE + name: tensor.float() * stored[name + _SCALE].float()[..., None]
        if name + _SCALE in stored
        else tensor.float()
        for name, tensor in stored.items()
        if not name.endswith(_SCALE)
    }


def file_sha256(path: Path) -> str:
    """Computes the SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
