"""A small Ray cluster on this machine: several nodes with their own workers, as several machines would be.

Nodes are told apart by Ray alone. They share this machine's processors, whatever number of CPUs they say they have.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.patience import PATIENCE
from tests.requirements import need_ray

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

#: Logical CPUs of each node.
CPUS = 2
_OBJECTS = 80 * 2**20
# Ports of a node's helpers. A node whose ports are not given ends where its helpers have not told theirs within 15 s.
_AGENTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")


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
    os.environ.setdefault("RAY_agent_register_timeout_ms", str(PATIENCE * 1000))
    os.environ.setdefault("RAY_raylet_start_wait_time_s", str(PATIENCE))
    # Workers are started when they are needed: each costs a second of a processor.
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")

    import ray
    from ray.cluster_utils import Cluster

    # Paths of sockets must be short, so it is not the test's own folder.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    cluster = Cluster()
    try:
        # Without what no test needs: on a busy machine a node gives up where its processes do not start in time.
        add_small_node(cluster, cpus, temp_dir=folder, include_dashboard=False, no_monitor=True)
        for _ in range(1, nodes):
            add_small_node(cluster, cpus)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def add_small_node(cluster: Cluster, cpus: int = CPUS, **options: Any) -> Any:
    """One more node; ``options`` as ``Cluster.add_node`` has them. Returns what ``Cluster.remove_node`` takes."""
    ports = dict(zip(_AGENTS, _free_ports(len(_AGENTS)), strict=True))
    with _patient():
        node = cluster.add_node(
            wait=False,
            num_cpus=cpus,
            object_store_memory=_OBJECTS,
            include_log_monitor=False,
            **{**ports, **options},
        )
        cluster.wait_for_nodes(PATIENCE)
    return node


@contextmanager
def _patient() -> Iterator[None]:
    """Start nodes without what only Ray's dashboard needs, and wait for them as long as for other states.

    Ray itself gives up after 30 s, which a busy machine may need.
    """
    from ray._private import services, utils

    look = services.get_node
    end = time.monotonic() + PATIENCE

    def look_again(*arguments: Any) -> Any:
        while True:
            try:
                return look(*arguments)
            except RuntimeError:
                if time.monotonic() > end:
                    raise

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(services, "get_node", look_again)
        patch.setattr(utils, "get_dashboard_dependency_error", lambda: ImportError("the dashboard is not needed"))
        yield


def _free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody uses now."""
    with ExitStack() as taken:
        servers = [taken.enter_context(socket.create_server(("", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in servers]
