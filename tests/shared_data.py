"""The real images and golden figures that some tests need; they are not part of the project.

SKETCH_SEARCH_DATA names a folder holding `data/`, `golden/` and `splits/`. `needs_shared_data` of tests.requirements
marks the tests that use it.
"""

import io
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

from sketch_search.training.corpus import DATA_VARIABLE, unpack


def golden(name: str) -> Path:
    """Returns the path of a file of golden figures, e.g. `metrics_reference.json`."""
    return _root() / "golden" / name


def data(name: str) -> Path:
    return _root() / "data" / name


def archive(name: str) -> Path:
    """Returns the folder with the contents of `data/<name>.tar.gz`, unpacked once for all runs and parallel workers."""
    return unpack(data(f"{name}.tar.gz"))


def _root() -> Path:
    return Path(os.environ[DATA_VARIABLE])


def pack(archive: Path, files: Mapping[str, bytes]) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
