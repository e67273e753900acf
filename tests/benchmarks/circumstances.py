"""The head of every benchmark's result: where, when and by what command it was measured."""

from __future__ import annotations

import datetime
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import httpx
import torch
from pydantic import BaseModel

from indexer.store.files import write_atomically
from model import Matcher
from service.settings import Settings


@dataclass(frozen=True)
class Call:
    """How a benchmark was called.

    Attributes:
        command: the command line.
        quick: whether it was the shortest form, which shows that all works and proves nothing.
    """

    command: str
    quick: bool


class Circumstances(BaseModel):
    """What a run was measured with: network, machine, device, threads, precision, versions, day and ``Call``."""

    network: str
    machine: str
    device: str
    threads: int
    dtype: str
    python: str
    torch: str
    date: str
    command: str
    quick: bool


class BenchmarkResult(BaseModel):
    """What every benchmark's result begins with.

    Attributes:
        finished: False while the benchmark runs; it stays so where the run was stopped.
        peak_mib: the most memory of a GPU that was in use, in MiB; None on a CPU.
    """

    circumstances: Circumstances
    finished: bool = True
    peak_mib: float | None = None

    def save(self, document: Path) -> None:
        """Write it as JSON, all or nothing, so that a run that is stopped leaves what it had finished."""
        write_atomically(document, f"{self.model_dump_json(indent=1)}\n".encode())


def circumstances(matcher: Matcher, call: Call) -> Circumstances:
    """The circumstances of a measurement that this process makes now with ``matcher``."""
    return _now(matcher.config.name, described(matcher.device), matcher.dtype, torch.get_num_threads(), call)


def circumstances_at(url: str, call: Call) -> Circumstances:
    """The circumstances of a measurement of the server at ``url``, which runs on this machine with this process's
    environment.
    """
    told = httpx.get(f"{url}/info").json()["model"]
    threads = Settings().threads or torch.get_num_threads()
    return _now(told["name"], described(torch.device(told["device"])), getattr(torch, told["dtype"]), threads, call)


def _now(network: str, device: str, dtype: torch.dtype, threads: int, call: Call) -> Circumstances:
    return Circumstances(
        network=network,
        machine=machine(),
        device=device,
        threads=threads,
        dtype=named(dtype),
        python=platform.python_version(),
        torch=str(torch.__version__),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        command=call.command,
        quick=call.quick,
    )


def machine() -> str:
    """The processor and its cores, for people."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"


def described(device: torch.device) -> str:
    """The name of a GPU, else the kind of device, for people."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def named(dtype: torch.dtype) -> str:
    """The name of a precision, such as "bfloat16"."""
    return str(dtype).removeprefix("torch.")


def synchronised(device: torch.device) -> None:
    """Wait until ``device`` has done all its work. A CPU never has any left."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_mib(device: torch.device) -> float | None:
    """The most memory of a GPU that this process had in use, in MiB; None for a CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
