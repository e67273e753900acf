"""Gives checkpoints the projection of regions, which makes them small enough to be kept of every photo."""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from model.checkpoint import load_zse_network
from model.datasets import data_folder, read_data, read_imagenet, read_split
from model.engine import Floats, Projection
from model.errors import ModelError
from model.matcher import load
from model.papers.runs import check_target
from model.papers.vocabulary import save_changed

# Numbers of a region. In 1,000 ordinary photos, all 192 found no more scenes than 64, and 64 more than 32: in the first
# 20 photos 0.49, 0.51 and 0.44 of 108 scenes.
WIDTH = 64
# Every _EVERY-th photo is enough to fit components on, and so many are encoded at once.
_EVERY, _AT_ONCE = 6, 16


def give_regions(source: Path, target: Path, like: Path | None = None) -> None:
    """Writes the checkpoint at ``source`` to ``target`` with a projection of regions.

    It is fitted on photos of training classes and of ImageNet-1k. One index serves checkpoints that share it.

    like: a checkpoint whose projection is taken; None to fit one. Raises ModelError if that has none, or for a network
    without regions.
    """
    check_target(target)
    network = load_zse_network(source)
    projection = None if like is None else load_zse_network(like).projection
    if like is not None and projection is None:
        raise ModelError(f"{like} has no regions; leave --like out")
    save_changed(network.projection_replaced(projection or _fitted(source)), source, target)
    print(f"wrote {target}: {WIDTH} numbers of each region of a photo")


def _fitted(source: Path) -> Projection:
    data = data_folder()
    photos = (*read_data(data).of(read_split(data, "train")).photos, *read_imagenet(data).photos)[::_EVERY]
    matcher = load(source)
    # Regions as they are.
    matcher.engine.projection = Projection(np.eye(matcher.config.width, dtype=np.float32))
    found: list[Floats] = []
    for start in tqdm(range(0, len(photos), _AT_ONCE), desc="looking at photos", disable=None):
        some = [matcher.prepare(matcher.open(one.path, "photo"), "photo") for one in photos[start : start + _AT_ONCE]]
        regions = matcher.engine.encode(np.stack(some), "photo").regions
        if regions is None:
            raise ModelError(f"{source} has no regions; only two-sided networks with an even patch grid have")
        found.append(regions.reshape(-1, matcher.config.width))
    return Projection.fitted(np.concatenate(found), WIDTH)
