"""Where and when something was measured."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path

import torch
from pydantic import BaseModel

from model import Matcher


class Circumstances(BaseModel):
    """Of one run: network, processor and cores, device, threads, precision, versions and day."""

    network: str
    machine: str
    device: str
    threads: int
    dtype: str
    python: str
    torch: str
    date: str


def circumstances(matcher: Matcher) -> Circumstances:
    """Those of now."""
    return Circumstances(
        network=matcher.config.name,
        machine=machine(),
        device=str(matcher.device),
        threads=torch.get_num_threads(),
        dtype=str(matcher.dtype).removeprefix("torch."),
        python=platform.python_version(),
        torch=str(torch.__version__),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )


def machine() -> str:
    """Processor and cores."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"
