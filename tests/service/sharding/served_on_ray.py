"""The server over shards on a Ray cluster, as users start it, and its copies of shards to be killed."""

from __future__ import annotations

import os
import random
import subprocess
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from indexer.distributed import connected
from service.serving.on_ray import APPLICATION
from service.settings import Settings
from tests.patience import PATIENCE
from tests.programs import started_python
from tests.service.small_gallery import PHOTOS

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster


@dataclass(frozen=True)
class OnRay:
    """A server over shards.

    Attributes:
        http: a connection to it. folders: of the shards. cluster: where they run.
    """

    http: httpx.Client
    folders: Sequence[Path]
    cluster: Cluster

    def search(self, sketch: bytes, **asked: Any) -> dict[str, Any]:
        """What a search is answered."""
        answer = self.http.post("/search", content=sketch, params={"k": PHOTOS, **asked})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def answering(self) -> int:
        """How many shards answer."""
        return sum(shard["answers"] for shard in self.http.get("/info").json()["shards"])

    def kill(self, shard: int | str, most: int = 1) -> int:
        """Kill copies of a shard, or of the "encoder", any ones and at most so many, as a machine does that fails.

        Returns how many.
        """
        import ray

        with connected(self.cluster.address):
            copies = _named(shard)
            killed = random.sample(copies, min(most, len(copies)))
            for copy in killed:
                ray.kill(ray.get_actor(**copy))
        return len(killed)

    def copies(self) -> list[int]:
        """How many copies of each shard are there and answer."""
        with warnings.catch_warnings():
            # Of how Ray uses pydantic.
            warnings.simplefilter("ignore", DeprecationWarning)
            from ray import serve

        with connected(self.cluster.address):
            told = serve.status().applications
            # Serve itself notices only after seconds that a copy has ended.
            return [
                min(
                    len(_named(shard)),
                    sum(one.replica_states.get("RUNNING", 0) for one in application.deployments.values()),
                )
                for shard, application in ((n, told[f"{APPLICATION}-{n}"]) for n in range(len(self.folders)))
            ]


def _named(shard: int | str) -> list[dict[str, str]]:
    """The copies of a shard, as ``ray.get_actor`` takes them."""
    import ray

    named = ray.util.list_named_actors(all_namespaces=True)
    return [one for one in named if one["name"].startswith(f"SERVE_REPLICA::{APPLICATION}-{shard}#")]


@contextmanager
def served_on_ray(
    settings: Settings,
    folders: Sequence[Path],
    cluster: Cluster,
    log: Path,
    *,
    copies: int = 1,
    seconds: float = 100,
    **environment: str,
) -> Iterator[OnRay]:
    """Serve shards, with so many copies of each, until the block ends.

    seconds: how long a shard may take to answer. environment: further variables of the server.
    """
    place = {
        "SBIR_WEIGHTS": str(settings.weights),
        "SBIR_QUEUE_SECONDS": str(PATIENCE),
        "SBIR_SHARD_SECONDS": str(seconds),
        **environment,
    }
    arguments = ["serve", "--port", "0", "--ray", cluster.address, "--replicas", str(copies), "--shards"]
    command = ["-m", "service", *arguments, *map(str, folders)]
    try:
        with (
            log.open("w") as errors,
            started_python(*command, environment={**os.environ, **place}, errors=errors) as process,
            httpx.Client(base_url=_address(process, len(folders)), timeout=PATIENCE) as http,
        ):
            yield OnRay(http, folders, cluster)
    except BaseException:
        # Shown where a test fails.
        print(log.read_text())
        raise


def _address(process: subprocess.Popen[str], shards: int) -> str:
    """Where the server says that it is."""
    assert process.stdout is not None
    told = process.stdout.readline()
    assert told.startswith(f"{shards} shards on the Ray cluster "), told
    return process.stdout.readline().split()[-1]
