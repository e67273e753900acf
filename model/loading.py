"""Loads a checkpoint: its graphs by ONNX Runtime if possible, else its network by PyTorch."""

from __future__ import annotations

import ctypes
import importlib.util
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeAlias

from sketch_search.model.engine import Engine, default_checkpoint, file_sha256
from sketch_search.model.engine.graphs import find_graphs
from sketch_search.model.engine.runtime import open_graphs
from sketch_search.model.errors import ModelError
from sketch_search.model.matcher import Matcher

#: The precision of large products. "int8" is ONNX Runtime's, the others are PyTorch's.
Precision: TypeAlias = Literal["int8", "float32", "bfloat16", "float16"]


def load(
    path_or_name: str | Path = "default",
    device: str = "cpu",
    dtype: Precision | None = None,
    *,
    variants: int | None = None,
) -> Matcher:
    """Loads a checkpoint. Raises ModelError for one that cannot be read, or a device that cannot be used.

    path_or_name: a safetensors file, or an embedded checkpoint: "default", or "zse", of ZSE-SBIR. device: "cpu",
    "cuda", or "auto" for a GPU if there is one. dtype: precision of large products; None for ONNX Runtime's int8 on a
    CPU if the network is on a photo side, else PyTorch's fastest, which changes relation scores by up to 0.002.
    variants: how many variants of a sketch to encode, 1 to MAX_VARIANTS; None for the checkpoint's number.
    """
    path = default_checkpoint(path_or_name)
    if device == "auto":
        device = "cuda" if has_gpu() else "cpu"
    return Matcher(_open_engine(path, device, dtype), file_sha256(path), variants=variants)


def has_gpu() -> bool:
    """Returns True if PyTorch can use a GPU here. PyTorch is imported only if NVIDIA's driver is installed."""
    if not _has_driver() or importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


def where_it_computes(device: str) -> str:
    """Describes where ``load`` computes, by the name of a device: "auto", "cpu" or "cuda"."""
    if device == "cuda" or (device == "auto" and has_gpu()):
        return "the GPU"
    unused = device == "auto" and _has_driver() and importlib.util.find_spec("torch") is None
    return "the CPU; to use the GPU: pip install 'sketch-search[gpu]'" if unused else "the CPU"


def _has_driver() -> bool:
    with suppress(OSError):
        ctypes.CDLL("libcuda.so.1")
        return True
    return False


def _open_engine(path: Path, device: str, dtype: Precision | None) -> Engine:
    graphs = find_graphs(path)
    if device == "cpu" and dtype in (None, "int8") and graphs is not None:
        return open_graphs(path, graphs)
    if dtype == "int8":
        raise ModelError(f"{path} cannot compute in int8 on {device}: only networks on a photo side can, on a CPU")
    if importlib.util.find_spec("torch") is None:
        precision = "" if dtype is None else f" in {dtype}"
        raise ModelError(f"{path} on {device}{precision} needs PyTorch: pip install 'sketch-search[gpu]'")
    import torch

    from sketch_search.model.torch import TorchEngine, fastest_dtype, find_device
    from sketch_search.model.torch.checkpoint import load_network

    target = find_device(device)
    network = load_network(path).to(target)
    network.set_precision(fastest_dtype(network, target) if dtype is None else getattr(torch, dtype))
    return TorchEngine(network)
