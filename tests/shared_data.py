"""The real images and golden figures that some tests need; they are not part of the project.

SKETCH_SEARCH_DATA names a folder holding `data/`, `golden/` and `splits/`. Without it those tests are skipped.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from pathlib import Path

import pytest

_VARIABLE = "SKETCH_SEARCH_DATA"
_CACHE = Path(__file__).resolve().parent.parent / ".cache" / "shared-data"

needs_shared_data = pytest.mark.skipif(
    not os.environ.get(_VARIABLE), reason=f"{_VARIABLE} does not name the folder of real images and golden figures"
)


def golden(name: str) -> Path:
    """A file of golden figures, e.g. `metrics_reference.json`."""
    return _root() / "golden" / name


def split(name: str) -> Path:
    """A published list of classes, e.g. `sketchy_104_21.unseen.txt`."""
    return _root() / "splits" / name


def data(name: str) -> Path:
    """A file beside the archives, e.g. `classes.csv`."""
    return _root() / "data" / name


def archive(name: str) -> Path:
    """The folder with what `data/<name>.tar.gz` holds, unpacked once for all runs and all parallel workers."""
    packed = data(f"{name}.tar.gz")
    # The size in the name, so that a new archive is unpacked anew.
    unpacked = _CACHE / f"{name}-{packed.stat().st_size}"
    if not unpacked.exists():
        _CACHE.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f"{name}-", suffix=".partial", dir=_CACHE))
        try:
            with tarfile.open(packed) as tar:
                tar.extractall(partial, filter="data")
            partial.rename(unpacked)
        except OSError:
            # Another worker was first: a folder that holds files cannot be renamed onto.
            if not unpacked.exists():
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return unpacked


def _root() -> Path:
    return Path(os.environ[_VARIABLE])
