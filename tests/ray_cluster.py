"""A small Ray cluster on this machine: one node with workers, whatever number of CPUs it says that it has."""

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.programs import PATIENCE
from tests.requirements import need_ray

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

_OBJECTS = 80 * 2**20


def set_environment() -> None:
    """Sets the environment that Ray reads when it is first imported in a run of tests, by any of them."""
    # The token is of this run alone, or a second cluster on this machine, of another run, could be taken for this one.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", os.urandom(32).hex())
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_agent_register_timeout_ms", str(PATIENCE * 1000))
    os.environ.setdefault("RAY_raylet_start_wait_time_s", str(PATIENCE))
    # A node that is only slow is not dead. One that has ended refuses the connection, which is noticed without this.
    os.environ.setdefault("RAY_health_check_timeout_ms", str(PATIENCE * 1000))
    # Else a worker would wait for everything else on this machine, even for the server that asks it.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Workers are started when they are needed: each costs a second of a processor.
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")


@contextmanager
def ray_cluster_of(cpus: int) -> Iterator["Cluster"]:
    """A cluster of one node with so many logical CPUs, all of whose processes have ended when the block is left."""
    need_ray()
    import ray
    from ray.cluster_utils import Cluster

    # Paths of sockets must be short, so it is not the test's own folder.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    cluster = Cluster()
    # Ray writes which cluster is the newest of this machine: not over that of another cluster, and where no Ray has run
    # before, the folder would be missing.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        (Path(folder) / "ray").mkdir()
        try:
            _start_node(cluster, cpus, folder)
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


def _start_node(cluster: "Cluster", cpus: int, folder: str) -> None:
    """Start the node without what no test needs: on a busy machine it gives up where not all starts in time."""
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
    with _patient(port):
        left_out = {"include_log_monitor": False, "include_dashboard": False, "no_monitor": True}
        own = {"num_cpus": cpus, "object_store_memory": _OBJECTS, "runtime_env_agent_port": port, "temp_dir": folder}
        cluster.add_node(wait=False, **own, **left_out)
        cluster.wait_for_nodes(PATIENCE)


@contextmanager
def _patient(port: int) -> Iterator[None]:
    """Start the node without what only Ray's dashboard needs, and wait for them as long as for other states.

    A busy machine may need that: Ray itself gives up where a node has not started within 30 s, and where a helper of
    the node has not told its port within 15 s. So the ports are told here: ``port`` of the helper that is needed, and
    none of the others.
    """
    from ray._private import services, utils

    start, look = services.start_raylet, services.get_node
    end = time.monotonic() + PATIENCE

    def start_at_once(*arguments: Any, **options: Any) -> Any:
        told = signature(start).bind(*arguments, **options).arguments
        for name in ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port"):
            (Path(told["session_dir"]) / f"{name}_{told['node_id']}").write_text("-1")
        (Path(told["session_dir"]) / f"runtime_env_agent_port_{told['node_id']}").write_text(str(port))
        return start(*arguments, **options)

    def look_again(*arguments: Any) -> Any:
        while True:
            try:
                return look(*arguments)
            except RuntimeError:
                if time.monotonic() > end:
                    raise

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(services, "start_raylet", start_at_once)
        patch.setattr(services, "get_node", look_again)
        patch.setattr(utils, "get_dashboard_dependency_error", lambda: ImportError("the dashboard is not needed"))
        yield
