"""python -m tests.indexer.tiny_index OUT: six photos of 24 by 24 pixels, and a tiny index of them, to be committed.

``tests/indexer/version_1`` was made with the first program that wrote index format 1. It is never made anew: it is
there to stay as it is while the program goes on.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import model
from indexer import build
from tests.networks import tiny_checkpoint
from tests.pictures import SHAPES, photo

# Where the photos are is another place on every machine.
ROOT = "/photos"


def main(out: Path) -> None:
    photos = out / "photos"
    for number in range(6):
        path = photos / ("more" if number % 2 else "") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(SHAPES[number % len(SHAPES)], size=24, seed=number).save(path)
    shutil.copy(photos / "2.png", photos / "a copy.png")
    with TemporaryDirectory() as folder:
        matcher = model.load(tiny_checkpoint(Path(folder) / "tiny.safetensors"), dtype=torch.float32)
    index = out / "index"
    build([photos], index, matcher, embedder="ret", clusters=2)
    for name in (".lock", "progress.json"):
        (index / name).unlink()
    place_photos(index, ROOT)


def place_photos(index: Path, root: str) -> None:
    """Let an index's manifest say that its photos are in ``root``."""
    path = index / "g000001" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["roots"][0]["path"] = root
    path.write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
