"""Prepared pictures, cached as bytes, so that training decodes each file only once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from model.datasets.corpus import Picture
from model.errors import ImageError, ModelError
from model.images import Preprocessing
from model.network import Modality


def prepared_pixels(
    pictures: Sequence[Picture], modality: Modality, preprocessing: Preprocessing, cache: Path
) -> torch.Tensor:
    """(n, c, H, W) uint8, memory-mapped from ``cache``; c is 1 for sketches, which are grey, and 3 for photos.

    The first call for these pictures and this preprocessing writes the file; later calls only map it.
    """
    channels = 1 if modality == "sketch" else 3
    if not pictures:
        return torch.empty(0, channels, preprocessing.image_size, preprocessing.image_size, dtype=torch.uint8)
    key = pictures_key(pictures, preprocessing)
    target = cache / f"{modality}-{channels}-{preprocessing.image_size}-{key[:16]}.npy"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(f".{os.getpid()}.partial")
        shape = (len(pictures), channels, preprocessing.image_size, preprocessing.image_size)
        array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        for row, picture in enumerate(
            tqdm(pictures, desc=f"preparing each {modality}", unit="image", mininterval=1, disable=None)
        ):
            try:
                pixels = preprocessing.pixels(preprocessing.open(picture.path, modality), modality)
            except ImageError as error:
                raise ModelError(f"{picture.path}: {error}; remove it or repair it") from error
            array[row] = pixels.transpose(2, 0, 1)[:channels]
        array.flush()
        del array
        os.replace(partial, target)
    return torch.from_numpy(np.load(target, mmap_mode="c"))


def pictures_key(pictures: Sequence[Picture], preprocessing: Preprocessing) -> str:
    """Hex digest of the files, their order, their labels and their preprocessing."""
    key = hashlib.sha256(preprocessing.fingerprint().encode())
    for picture in pictures:
        stat = picture.path.stat()
        key.update(f"{picture.label}:{picture.path.absolute()}:{stat.st_size}:{stat.st_mtime_ns}\n".encode())
    return key.hexdigest()


def normalised(pixels: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """(b, c, H, W) uint8 -> (b, 3, H, W) float32 the same values as ``Preprocessing.prepare``."""
    mean = torch.tensor(preprocessing.mean, device=pixels.device).view(1, 3, 1, 1)
    std = torch.tensor(preprocessing.std, device=pixels.device).view(1, 3, 1, 1)
    return (pixels.float().expand(-1, 3, -1, -1) / 255 - mean) / std
