"""A Ray cluster of this machine alone: nobody else reaches it."""

from __future__ import annotations

import sys
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import pytest

from tests.patience import PATIENCE
from tests.programs import started_python
from tests.requirements import need_ray

PROGRAM = """
import sys
from indexer.distributed import connected
with connected("local"):
    print("connected", flush=True)
    sys.stdin.read()
"""
# 127.0.0.1, the same as an IPv6 address, and ::1, as Linux writes them.
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
PROC = Path("/proc")


def family(process: int) -> list[int]:
    """A process, and all that it has started."""
    children = defaultdict(list)
    for folder in PROC.glob("[0-9]*"):
        with suppress(OSError):
            children[int((folder / "stat").read_text().rpartition(")")[2].split()[1])].append(int(folder.name))
    found = [process]
    for one in found:
        found += children[one]
    return found


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
def test_a_cluster_of_this_machine_alone_listens_on_its_loopback_address_alone() -> None:
    need_ray()
    with started_python("-c", PROGRAM) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "connected\n"
        found = listening(family(process.pid))
        assert found
        assert found <= LOOPBACK
        process.stdin.close()
        assert process.wait(PATIENCE) == 0
