"""The server over shards on a Ray cluster, as users start it, and its copies of shards to be killed."""

import os
import random
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from sketch_search.service.serving.on_ray import APPLICATION
from sketch_search.service.settings import Settings
from tests.programs import PATIENCE, family, started_python
from tests.requirements import need_ray
from tests.service.small_gallery import PHOTOS

ROOT = str(Path(__file__).parents[3])


@dataclass(frozen=True)
class OnRay:
    """A server over shards.

    Attributes:
        http: a connection to it. folders: of the shards. process: the one that has started the cluster.
    """

    http: httpx.Client
    folders: Sequence[Path]
    process: int

    def search(self, sketch: bytes, **asked: Any) -> dict[str, Any]:
        answer = self.http.post("/search", content=sketch, params={"k": PHOTOS, **asked})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def copies(self, shard: int | str) -> list[int]:
        """Returns the processes that are copies of a shard, or of the "encoder"."""
        found = []
        for process in family(self.process):
            with suppress(OSError):
                if re.search(rf"ray::{APPLICATION}-\w+-{shard}\b", Path(f"/proc/{process}/cmdline").read_text()):
                    found.append(process)
        return found

    def kill(self, shard: int | str, most: int = 1) -> int:
        """Kill copies of a shard, or of the "encoder", any ones and at most so many, as a machine does that fails.

        Returns how many.
        """
        copies = self.copies(shard)
        killed = random.sample(copies, min(most, len(copies)))
        for copy in killed:
            os.kill(copy, signal.SIGKILL)
        return len(killed)


@contextmanager
def served_on_ray(
    settings: Settings, folders: Sequence[Path], ray: str, log: Path, *, copies: int = 1, **environment: str
) -> Iterator[OnRay]:
    """Serve shards until the block ends, with so many copies of each.

    ray: the address of the cluster, or "local". log: the file for what the server says, in the folder that is its
    user's home. environment: further variables of the server. The test is skipped where Ray is not installed.
    """
    need_ray()
    # Nobody has a token of a cluster that does not run yet.
    kept = {name: value for name, value in os.environ.items() if ray != "local" or not name.startswith("RAY_AUTH_")}
    place = {
        "HOME": str(log.parent),
        "PYTHONPATH": ROOT,
        **({"SKETCH_SEARCH_WEIGHTS": str(settings.weights)} if settings.weights else {}),
        "SKETCH_SEARCH_QUEUE_SECONDS": str(PATIENCE),
        "SKETCH_SEARCH_SHARD_SECONDS": "100",
        **environment,
    }
    command = ["-m", "service", "serve", "--port", "0", "--ray", ray, "--replicas", str(copies), "--shards"]
    try:
        with (
            log.open("w") as errors,
            started_python(*command, *map(str, folders), environment=kept | place, errors=errors) as process,
        ):
            assert process.stdout is not None
            assert process.stdout.readline() == f"{len(folders)} shards on the Ray cluster {ray}\n"
            with httpx.Client(base_url=process.stdout.readline().split()[-1], timeout=PATIENCE) as http:
                yield OnRay(http, folders, process.pid if ray == "local" else os.getpid())
    except BaseException:
        # Shown where a test fails.
        print(log.read_text())
        raise
