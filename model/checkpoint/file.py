"""Reads and writes checkpoints: safetensors files that carry their network's configuration and calibration."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import reduce
from operator import or_
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from sketch_search.model import engine
from sketch_search.model.engine.files import FORMAT, PHOTO_SIDE_KIND, PHOTO_SIDE_NAME, SCALE, VERSION, ZSE, check_memory
from sketch_search.model.errors import ModelError
from sketch_search.model.files import check_replaceable
from sketch_search.model.network import NETWORKS, Network, RetNetwork, as_zse, vit_of_photo_side

#: In the state of a network, the names of the photo side's tensors begin with this.
PHOTO_SIDE = "encoder.photo_side."
# The prefixes of the names of arrays that an engine adds to a network.
KNOWLEDGE = ("prior.", "vocabulary.", "projection.", "parting.")
# Matrices are stored as int8 with a scale for each row: 23 MB instead of 88.
_MOST = 127


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path beside ``path``. The file written there replaces ``path``, unless the block fails."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def save_checkpoint(network: RetNetwork, path: str | Path, notes: Mapping[str, str] | None = None) -> None:
    """Writes a checkpoint atomically, with further ``notes``. Raises ModelError if it cannot be written."""
    path = Path(path)
    metadata = {
        **(notes or {}),
        "format": FORMAT,
        "version": str(VERSION),
        "config": engine.to_json(network.config),
        "calibration": engine.to_json(network.calibration),
    }
    if network.kind != ZSE:
        metadata["kind"] = network.kind
    state, dtype = network.state_dict(), next(network.parameters()).dtype
    for part, known in (("prior", network.prior), ("vocabulary", network.vocabulary), ("parting", network.parting)):
        for name, array in {} if known is None else known.arrays().items():
            state[f"{part}.{name}"] = torch.as_tensor(array, dtype=dtype)
    if network.projection is not None:
        # In full precision, since its bytes determine which index fits.
        state |= {f"projection.{n}": torch.as_tensor(array) for n, array in network.projection.arrays().items()}
    shared = shared_matrices(network)
    tensors = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in state.items()
        if not name.startswith(PHOTO_SIDE) and name not in shared
    }
    _write(tensors, path, metadata)


def shared_matrices(network: RetNetwork) -> set[str]:
    """Names the matrices of a network that are those of a photo side's ViT, so that its checkpoint leaves them out."""
    if (
        not isinstance(network, Network)
        or not isinstance(network.config, engine.ZseConfig)
        or not network.config.photo_side
    ):
        return set()
    names = (name for name, value in network.encoder.named_parameters() if value.ndim > 1)
    return {f"encoder.{name}" for name in names if name == "tokenizer.patch.weight" or name.startswith("blocks.")}


def _write(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
    check_replaceable(path)
    try:
        with replacing(path) as partial:
            save_file(tensors, partial, metadata=metadata)
            _sort_metadata(partial)
            partial.chmod(0o644)  # the library lets only the owner read it, but services often run as another user
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be written ({error}); name a folder that exists and has room") from error


def _sort_metadata(path: Path) -> None:
    """Sorts the entries of a file's metadata, which the library writes in random order: equal weights, equal files."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(length)
        if len(text) == length:
            file.seek(8)
            file.write(text)


def load_network(path: str | Path) -> RetNetwork:
    """Loads a checkpoint's network, float32, evaluation mode, on the CPU. Raises ModelError; MemoryError."""
    path = Path(path)
    metadata = engine.read_metadata(path)
    kind = NETWORKS.get(metadata.get("kind", ZSE))
    if kind is None:
        raise ModelError(
            f"{path} holds a network of the kind {metadata['kind']!r}, which this version does not support; "
            "install a newer sketch-search"
        )
    config = engine.from_json(kind.config_kind, metadata["config"], "the checkpoint's configuration")
    calibration = engine.from_json(engine.Calibration, metadata.get("calibration", ""), "the checkpoint's calibration")
    with torch.device("meta"):
        network = kind(config, calibration)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (no mapping)
        # These values are checked before those of the photo side are added, which its hash identifies.
        broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
        if isinstance(config, engine.TwoSidedConfig):
            tensors |= read_photo_side(engine.find_photo_side(config.photo_side, path))[0]
        elif isinstance(config, engine.ZseConfig) and config.photo_side:
            side = photo_side_tensors(engine.find_photo_side(config.photo_side, path))
            tensors |= {f"encoder.{n}": value for n, value in vit_of_photo_side(side, matrices_only=True).items()}
        known = {name: tensors.pop(name).numpy() for name in list(tensors) if name.startswith(KNOWLEDGE)}
        network.prior, network.vocabulary, network.projection, network.parting = engine.knowledge_of(config, known)
        network.load_state_dict(tensors, strict=True, assign=True)
    except (SafetensorError, RuntimeError, KeyError, TypeError) as error:
        check_memory(error)
        reason = " ".join(str(error).split())
        raise ModelError(f"{path} does not hold the tensors of its configuration: {reason}") from error
    if broken:
        raise ModelError(f"{path} is damaged: {broken[0]} holds values that are not finite; use another checkpoint")
    return network.requires_grad_(False).eval()


def load_zse_network(path: Path) -> Network:
    """Loads a network that must be one of ZSE-SBIR. Raises ModelError like ``load_network``, and for another kind."""
    return as_zse(load_network(path))


def average_checkpoints(sources: Sequence[Path], target: Path) -> None:
    """Averages weights of networks trained from one start (Model soups, ICML 2022). Raises ModelError."""
    networks = [load_zse_network(path) for path in sources]
    plain = [network.prior_replaced(None).vocabulary_replaced(None).parting_replaced(None) for network in networks]
    mean, prior = plain[0], networks[0].prior
    for network, path in zip(plain, sources, strict=True):
        if network.config != mean.config:
            raise ModelError(f"{path} and {sources[0]} have different configurations; average networks trained alike")
    states = [network.state_dict() for network in plain]
    mean.load_state_dict({name: torch.stack([state[name] for state in states]).mean(dim=0) for name in states[0]})
    if isinstance(mean.config, engine.TwoSidedConfig):
        keep_photo_side(engine.find_photo_side(mean.config.photo_side, sources[0]), target)
    notes = {"origin": "the mean of " + ", ".join(engine.file_sha256(path)[:12] for path in sources)}
    seen = [engine.seen_classes(path) for path in sources]
    if None not in seen:
        notes |= reduce(or_, filter(None, seen)).note()
    save_checkpoint(mean.prior_replaced(prior).half(), target, notes)


def save_photo_side(tensors: Mapping[str, torch.Tensor], path: Path, notes: Mapping[str, str] | None = None) -> str:
    """Writes the tensors of a `PhotoSide` atomically, matrices as int8; returns the file's SHA-256."""
    stored: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if "vit." in name and tensor.ndim == 3:
            scale = (tensor.abs().amax(dim=-1) / _MOST).half().clamp(min=1e-7)
            stored[name] = (tensor / scale.float()[..., None]).round().clamp(-_MOST, _MOST).to(torch.int8)
            stored[name + SCALE] = scale
        else:
            stored[name] = tensor.half().contiguous()
    _write(stored, path, {PHOTO_SIDE_KIND: json.dumps(dict(notes or {}), sort_keys=True)})
    return engine.file_sha256(path)


def keep_photo_side(photo_side: Path, checkpoint: Path) -> None:
    """Copies a photo side beside a checkpoint unless it is found without. Raises ModelError."""
    try:
        engine.find_photo_side(engine.file_sha256(photo_side), checkpoint)
    except ModelError:
        beside = checkpoint.with_name(PHOTO_SIDE_NAME)
        if os.path.lexists(beside):
            raise
        try:
            shutil.copyfile(photo_side, beside)
        except OSError as error:
            raise ModelError(f"{beside} cannot be written ({error}); copy {photo_side} there") from error


def read_photo_side(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Reads the tensors of a photo side, float32, by their names in a network, and its notes. Raises ModelError."""
    try:
        with safe_open(path, framework="pt") as file:
            notes = json.loads((file.metadata() or {})[PHOTO_SIDE_KIND])
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise ModelError(
            f"{path} cannot be read as a photo side ({error}); install sketch-search again, or make it again by model "
            "photo-side"
        ) from error
    tensors = {
        PHOTO_SIDE + name: tensor.float() * stored[name + SCALE].float()[..., None]
        if name + SCALE in stored
        else tensor.float()
        for name, tensor in stored.items()
        if not name.endswith(SCALE)
    }
    return tensors, notes


def photo_side_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Reads the tensors of a photo side, float32, by their names in a `PhotoSide`. Raises ModelError."""
    return {name.removeprefix(PHOTO_SIDE): tensor for name, tensor in read_photo_side(path)[0].items()}
