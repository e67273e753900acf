"""A server on a Ray cluster of this machine alone: nobody else reaches it."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from service.settings import Settings
from tests.patience import PATIENCE
from tests.programs import family, started_python
from tests.requirements import need_ray

# 127.0.0.1, the same as an IPv6 address, and ::1, as Linux writes them.
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
PROC = Path("/proc")
ROOT = str(Path(__file__).parents[3])


def listening(processes: list[int]) -> set[str]:
    """The addresses on which these processes listen for TCP connections, as Linux writes them."""
    sockets = set()
    for process in processes:
        for file in (PROC / str(process) / "fd").glob("*"):
            with suppress(OSError):
                sockets.add(str(file.readlink()))
    lines = [line.split() for name in ("tcp", "tcp6") for line in (PROC / "net" / name).read_text().splitlines()[1:]]
    return {line[1].partition(":")[0] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in sockets}


@pytest.mark.skipif(sys.platform != "linux", reason="reads from /proc who listens")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="a shard and the encoder need two CPUs")
def test_a_server_on_a_cluster_of_this_machine_listens_on_its_loopback_address_alone(
    settings: Settings, shard_folders: list[Path], tmp_path: Path
) -> None:
    need_ray()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"SBIR_WEIGHTS": str(settings.weights), "HOME": str(tmp_path), "PYTHONPATH": ROOT}
    command = ["-m", "service", "serve", "--port", "0", "--ray", "local", "--shards", str(shard_folders[0])]
    with (tmp_path / "log").open("w") as log, started_python(*command, environment=environment, errors=log) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1 shards on the Ray cluster local\n"
        url = process.stdout.readline().split()[-1]
        assert httpx.get(f"{url}/readyz", timeout=PATIENCE).status_code == 200
        processes = family(process.pid)
        assert sum("ServeReplica" in (PROC / str(one) / "cmdline").read_text() for one in processes) == 2
        found = listening(processes)
        assert found
        assert found <= LOOPBACK
    # The cluster's token is in the memory of its processes alone.
    assert not (tmp_path / ".ray").exists()
