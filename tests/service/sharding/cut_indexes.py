"""Shards on disk: folders with ordinary indexes whose photos have different ids."""

from __future__ import annotations

import shutil
from pathlib import Path

from indexer import open_index, remove
from model import Matcher

SHARDS = 2


def cut(index: Path, matcher: Matcher, folder: Path, shards: int = SHARDS) -> list[Path]:
    """Copies of an index in a folder, each of which has lost all photos but its share."""
    with open_index(index, matcher) as opened:
        files = [opened.photo(photo).paths for photo in sorted(opened.ids.tolist())]
    places = [folder / f"shard-{number:04}" for number in range(shards)]
    for number, place in enumerate(places):
        shutil.copytree(index, place)
        others = [path for n, paths in enumerate(files) if n * shards // len(files) != number for path in paths]
        remove(others, place)
    return places
