"""Prepares Ray's workers for a test: they decode at once, sync nothing, and end at certain photos.

A photo whose name has `KILLS` ends the first worker that reads it.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sketch_search.indexer import BuildReport
from sketch_search.indexer.building import staging
from sketch_search.indexer.store.files import FileContent, FileStamp
from sketch_search.indexer.store.folders import LocalFolder
from tests.indexer.killed_builds import InThisProcess
from tests.programs import forget_syncs

KILLS = "kills its worker"
# Files of a slice.
SLICE = 5
# Builds shards of a gallery as the tests do: by [Ret], in small slices.
BuildShards = Callable[..., BuildReport]
_ROOT = str(Path(__file__).parents[3])


@contextmanager
def connection(address: str, **variables: str) -> Iterator[None]:
    """This process is connected to a cluster on whose workers, with these variables, `install` was called."""
    import ray

    environment = {
        "env_vars": {"PYTHONPATH": _ROOT, **variables},
        "worker_process_setup_hook": "tests.indexer.distributed.workers.install",
    }
    ray.init(address=address, runtime_env=environment, log_to_driver=False, logging_level=40)
    try:
        yield
    finally:
        ray.shutdown()


def install() -> None:
    kept = LocalFolder.read

    def read(folder: LocalFolder, path: str, listed: FileStamp | None = None) -> FileContent:
        dead = folder.path.with_name("a worker is dead")
        if KILLS in path and not dead.exists():
            dead.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return kept(folder, path, listed)

    patch = pytest.MonkeyPatch()
    forget_syncs(patch)
    patch.setattr(staging, "Decoders", InThisProcess)
    patch.setattr(LocalFolder, "read", read)
