"""Reads and writes checkpoints: safetensors files that carry their network's configuration and calibration.

Converts the released files of ZSE-SBIR (.pth) and of CLIP-AT (.ckpt) to such.
"""

import dataclasses
import json
import os
import pickle
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from sketch_search.model import engine
from sketch_search.model import torch as networks
from sketch_search.model.engine import Calibration, ZseConfig, preset
from sketch_search.model.engine.files import FORMAT, PHOTO_SIDE_KIND, PHOTO_SIDE_NAME, SCALE, VERSION, ZSE, check_memory
from sketch_search.model.errors import ModelError
from sketch_search.model.files import check_replaceable

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


def save_checkpoint(network: networks.RetNetwork, path: str | Path, notes: Mapping[str, str] | None = None) -> None:
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
    left_out: tuple[str, ...] = (PHOTO_SIDE,)
    if isinstance(network.config, engine.ZseConfig) and network.config.photo_side:
        # The matrices of its ViT are those of the photo side.
        prefixes = "encoder.tokenizer.patch.", "encoder.blocks."
        left_out += tuple(n for n, value in network.named_parameters() if value.ndim > 1 and n.startswith(prefixes))
    tensors = {n: t.detach().cpu().contiguous() for n, t in state.items() if not n.startswith(left_out)}
    _write(tensors, path, metadata)


def _write(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
    check_replaceable(path)
    try:
        with replacing(path) as partial:
            save_file(tensors, partial, metadata=metadata)
            # The library writes the metadata in random order; sorted, equal weights give equal files.
            with partial.open("r+b") as file:
                length = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(length))
                header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
                text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(length)
                if len(text) == length:
                    file.seek(8)
                    file.write(text)
            partial.chmod(0o644)  # the library lets only the owner read it, but services often run as another user
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be written ({error}); name a folder that exists and has room") from error


def load_network(path: str | Path) -> networks.RetNetwork:
    """Loads a checkpoint's network, float32, evaluation mode, on the CPU. Raises ModelError; MemoryError."""
    path = Path(path)
    metadata = engine.read_metadata(path)
    kind = networks.NETWORKS.get(metadata.get("kind", ZSE))
    if kind is None:
        problem = f"of the kind {metadata['kind']!r}, which this version does not support"
        raise ModelError(f"{path} holds a network {problem}; install a newer sketch-search")
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
            tensors |= {f"encoder.{n}": v for n, v in networks.vit_of_photo_side(side, matrices_only=True).items()}
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


def load_zse_network(path: Path) -> networks.Network:
    """Loads a network that must be one of ZSE-SBIR. Raises ModelError like ``load_network``, and for another kind."""
    return networks.as_zse(load_network(path))


def average_checkpoints(sources: Sequence[Path], target: Path) -> None:
    """Averages weights of networks trained from one start (Model soups, ICML 2022). Raises ModelError."""
    loaded = [load_zse_network(path) for path in sources]
    plain = [network.prior_replaced(None).vocabulary_replaced(None).parting_replaced(None) for network in loaded]
    mean, prior, states = plain[0], loaded[0].prior, [network.state_dict() for network in plain]
    for network, path in zip(plain, sources, strict=True):
        if network.config != mean.config:
            raise ModelError(f"{path} and {sources[0]} have different configurations; average networks trained alike")
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
    stored = {name: tensor.half().contiguous() for name, tensor in tensors.items()}
    for name in [name for name, tensor in tensors.items() if "vit." in name and tensor.ndim == 3]:
        scale = (tensors[name].abs().amax(dim=-1) / _MOST).half().clamp(min=1e-7)
        stored[name] = (tensors[name] / scale.float()[..., None]).round().clamp(-_MOST, _MOST).to(torch.int8)
        stored[name + SCALE] = scale
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
        remedy = "install sketch-search again, or make it again by model photo-side"
        raise ModelError(f"{path} cannot be read as a photo side ({error}); {remedy}") from error
    scales = {name: stored.pop(name).float()[..., None] for name in [*stored] if name.endswith(SCALE)}
    return {PHOTO_SIDE + name: tensor.float() * scales.get(name + SCALE, 1) for name, tensor in stored.items()}, notes


def photo_side_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Reads the tensors of a photo side, float32, by their names in a `PhotoSide`. Raises ModelError."""
    return {name.removeprefix(PHOTO_SIDE): tensor for name, tensor in read_photo_side(path)[0].items()}


# Types that unpickling the numpy scalars beside the weights needs; files written with numpy 1 use the old path.
SAFE_GLOBALS = [
    np._core.multiarray.scalar,  # type: ignore[attr-defined]
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),  # type: ignore[attr-defined]
    np.dtype,
    np.dtypes.Float64DType,
]

RENAMED = (
    (r"^sa\.model\.pos_embedding$", "encoder.position"),
    (r"^sa\.model\.cls$", "encoder.ret"),
    (r"^sa\.model\.embedding\.", "encoder.tokenizer.patch."),
    (r"^sa\.model\.scale\.seq\.", "encoder.tokenizer.learnable.layers."),
    (r"^sa\.model\.transformer\.encoder_norm\.", "encoder.norm."),
    (r"^sa\.model\.transformer\.layers\.(\d+)\.0\.layer_norm_input\.", r"encoder.blocks.\1.norm1."),
    (r"^sa\.model\.transformer\.layers\.(\d+)\.0\.layer_norm_out\.", r"encoder.blocks.\1.norm2."),
    (r"^sa\.model\.transformer\.layers\.(\d+)\.0\.attention\.to_qkv\.", r"encoder.blocks.\1.attn.qkv."),
    (r"^sa\.model\.transformer\.layers\.(\d+)\.0\.attention\.to_out\.0\.", r"encoder.blocks.\1.attn.proj."),
    (r"^sa\.model\.transformer\.layers\.(\d+)\.0\.mlp\.net\.0\.", r"encoder.blocks.\1.mlp.fc1."),
    (r"^sa\.model\.transformer\.layers\.(\d+)\.0\.mlp\.net\.3\.", r"encoder.blocks.\1.mlp.fc2."),
    (r"^ca\.encoder\.layer1\.0\.", "cross.sketch."),
    (r"^ca\.encoder\.layer2\.0\.", "cross.photo."),
    (r"self_attn\.linears\.0\.", "query."),
    (r"self_attn\.linears\.1\.", "key."),
    (r"self_attn\.linears\.2\.", "value."),
    (r"self_attn\.linears\.3\.", "out."),
    (r"feed_forward\.w_1\.", "ffn.0."),
    (r"feed_forward\.w_2\.", "ffn.3."),
    (r"sublayer\.0\.norm\.a$", "norm1.weight"),
    (r"sublayer\.0\.norm\.b$", "norm1.bias"),
    (r"sublayer\.1\.norm\.a$", "norm2.weight"),
    (r"sublayer\.1\.norm\.b$", "norm2.bias"),
    (r"^rn\.rn\.", "relation.mlp."),
    (r"^conv2d\.", "relation.downsample."),
)
# The released code builds these layers but never calls them.
UNUSED = "ca.encoder.layers."
# Released networks are trained for both methods and measured by the relation network, on sketches as they are.
RELEASED_CALIBRATION = Calibration(methods=("rn", "ret"), best_method="rn", variants=1)


def released_config() -> ZseConfig:
    """Returns the configuration of the paper's network with all ``released_`` fields switched on."""
    return dataclasses.replace(
        preset("zse-b16"),
        name="zse-b16-released",
        norm_eps=1e-5,
        released_preprocessing=True,
        released_tokenizer_average=True,
        released_value_from_query=True,
        released_kernel_view=True,
        released_cross_norm=True,
    )


def read_released(path: Path) -> dict[str, torch.Tensor]:
    """Reads the state dict in a released file without running code in it. Raises ModelError for any other file."""
    if not path.is_file():
        raise ModelError(f"no file at {path}")
    try:
        with torch.serialization.safe_globals(SAFE_GLOBALS), warnings.catch_warnings():
            # PyTorch warns about unusual pickles before it refuses them; the error below says enough.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    # Unpickling unknown bytes may raise any error, and PyTorch refuses to unpickle a file named .safetensors.
    except Exception as error:
        # PyTorch's own message advises loading the file without this check.
        reason = "; it contains something else" if isinstance(error, pickle.UnpicklingError) else ", or it is damaged"
        raise ModelError(f"{path} is not a released checkpoint of tensors and numbers alone{reason}") from error
    # A state dict may also have been saved alone.
    state = content.get("model", content.get("state_dict", content)) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        kinds = '"model" state dict of ZSE-SBIR, nor a "state_dict" of CLIP-AT'
        raise ModelError(f"{path} holds no {kinds}; expected a released checkpoint")
    # DataParallel and torch.compile put these before all names.
    return {_WRAPPERS.sub("", name): value for name, value in state.items()}


_WRAPPERS = re.compile(r"^((module|_orig_mod)\.)+")


def convert(source: Path, target: Path) -> None:
    """Writes the released file ``source`` as the checkpoint ``target``. Raises ModelError with what does not fit."""
    state = read_released(source)
    # These are the weights of a model of CLIP-AT's public code.
    if set(PROMPTS.values()) <= set(state):
        origin = "converted from a released CLIP-AT checkpoint"
        save_checkpoint(build_clip_at(state, source), target, {"origin": origin})
        return
    config = released_config()
    first = state.get("rn.rn.0.weight")
    if first is not None and first.ndim == 2 and first.shape[1] != (config.grid // 2) ** 4:
        raise ModelError(
            f"{source} has a relation network for {round(first.shape[1] ** 0.5)} tokens; only those for 49 can be "
            "used, because the released forward pass always downsamples to 49"
        )
    used = {key: value.float() for key, value in state.items() if not key.startswith(UNUSED)}
    tensors = {networks.rename(key, RENAMED): value for key, value in used.items()}
    network = networks.Network(config, RELEASED_CALIBRATION)
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != expected:
        odd = sorted(expected.items() ^ shapes.items())
        raise ModelError(f"{source} is not a released ZSE-SBIR checkpoint: {len(odd)} entries differ, first {odd[0]}")
    network.load_state_dict(tensors)
    save_checkpoint(network, target, {"origin": "converted from a released ZSE-SBIR checkpoint"})


# The learned tokens of sketches and of photos, (k, width) each, and the names of the encoder that both share.
PROMPTS = {"sketch": "sk_prompt", "photo": "img_prompt"}
_ENCODER = "clip.visual."
# The public code normalises as ImageNet's networks do, not as CLIP does.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def build_clip_at(state: Mapping[str, torch.Tensor], source: Path) -> networks.ClipAtNetwork:
    """Builds the network in a released file, without its text encoder. Raises ModelError with what does not fit."""
    weights = {key.removeprefix(_ENCODER): value for key, value in state.items() if key.startswith(_ENCODER)}
    prompts = {modality: state[name].float() for modality, name in PROMPTS.items()}
    try:
        vit = networks.clip_encoder(weights, mean=_MEAN, std=_STD)
        shapes = {tuple(value.shape) for value in prompts.values()}
        if len(shapes) != 1 or len(shape := shapes.pop()) != 2 or shape[1] != vit.layout.width:
            raise ModelError(f"its prompts are not (k, {vit.layout.width})")
        look: dict[str, Any] = {"image_size": vit.image_size, "mean": vit.mean, "std": vit.std}
        of_release: dict[str, Any] = {"name": "clip-at-released", "shared_norms": True, "released_padding": True}
        config = networks.ClipAtConfig(vit=vit.layout, prompts=shape[0], **of_release, **look)
        network = networks.clip_at_network_from(config, vit.weights)
    except ModelError as error:
        raise ModelError(f"{source} is not a released CLIP-AT checkpoint: {error}") from error
    with torch.no_grad():
        for modality, values in prompts.items():
            network.learned.prompts[modality].copy_(values)
    return network.with_calibration(Calibration(methods=("ret",), best_method="ret", variants=1))
