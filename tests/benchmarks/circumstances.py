"""Where, when and by what command something was measured: the head of every benchmark's result."""

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
    """How a benchmark was called: the command line, and whether that was its shortest form, which proves nothing."""

    command: str
    quick: bool


class Circumstances(BaseModel):
    """Of one run: network, processor and cores, device, threads, precision, versions, day and ``Call``."""

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


class Measurement(BaseModel):
    """What a benchmark's result begins with.

    Attributes:
        finished: False while it is still being measured, and for ever where that was stopped.
        peak_mib: of a GPU's memory, the most that was ever in use.
    """

    circumstances: Circumstances
    finished: bool = True
    peak_mib: float | None = None

    def save(self, document: Path) -> None:
        """As JSON, all or nothing: a run that is stopped leaves what was finished."""
        write_atomically(document, f"{self.model_dump_json(indent=1)}\n".encode())


def circumstances(matcher: Matcher, call: Call) -> Circumstances:
    """Those of now, for what a matcher does here."""
    return _now(matcher.config.name, described(matcher.device), matcher.dtype, torch.get_num_threads(), call)


def circumstances_at(url: str, call: Call) -> Circumstances:
    """Those of now, for a server on this machine that was started with this process's environment."""
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
    """Processor and cores."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"


def described(device: torch.device) -> str:
    """For people: which GPU it is, or its kind."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def named(dtype: torch.dtype) -> str:
    """As "bfloat16"."""
    return str(dtype).removeprefix("torch.")


def synchronised(device: torch.device) -> None:
    """Wait until all that was given to ``device`` is done; a CPU has always done it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_mib(device: torch.device) -> float | None:
    """MiB of a GPU's memory, the most that was ever in use by this process; None for a CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
