"""A small Ray cluster on this machine: several nodes with their own workers, as several machines would be.

Nodes are told apart by Ray alone. They share this machine's processors, whatever number of CPUs they say they have.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.requirements import need_ray

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

#: Logical CPUs of each node.
CPUS = 2
_OBJECTS = 80 * 2**20


@contextmanager
def ray_cluster_of(nodes: int, cpus: int = CPUS) -> Iterator[Cluster]:
    """A cluster of so many nodes, all of whose processes have ended when the block is left.

    Nobody is connected to it; ``address`` of what is given says where it is. ``add_small_node`` adds further nodes.
    The test is skipped where Ray is not installed.
    """
    need_ray()
    # Of this run alone, or a second cluster on this machine, of another run, could be taken for this one. Ray reads
    # them when it is imported.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", os.urandom(32).hex())
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Workers are started when they are needed: each costs a second of a processor.
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    os.environ.setdefault("RAY_agent_register_timeout_ms", "200000")

    import ray
    from ray.cluster_utils import Cluster

    # Paths of sockets must be short, so it is not the test's own folder.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    cluster = Cluster()
    try:
        # Without what no test needs: on a busy machine a node gives up where its processes do not start in time.
        head = {"include_dashboard": False, "dashboard_agent_listen_port": 0, "no_monitor": True}
        add_small_node(cluster, cpus, temp_dir=folder, **head)
        for _ in range(1, nodes):
            add_small_node(cluster, cpus)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def add_small_node(cluster: Cluster, cpus: int = CPUS, **options: Any) -> Any:
    """One more node; ``options`` as ``Cluster.add_node`` has them. Returns what ``Cluster.remove_node`` takes."""
    return cluster.add_node(num_cpus=cpus, object_store_memory=_OBJECTS, include_log_monitor=False, **options)
