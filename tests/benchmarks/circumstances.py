"""Where and when something was measured."""

from __future__ import annotations

import datetime
import os
import platform

import torch
from pydantic import BaseModel

from model import Matcher


class Circumstances(BaseModel):
    """Of one run: network, machine, cores, threads, precision, versions and day."""

    network: str
    machine: str
    cores: int
    threads: int
    dtype: str
    python: str
    torch: str
    date: str


def circumstances(matcher: Matcher) -> Circumstances:
    """Those of now."""
    return Circumstances(
        network=matcher.config.name,
        machine=f"{platform.system()} {platform.machine()} {matcher.device}",
        cores=os.cpu_count() or 0,
        threads=torch.get_num_threads(),
        dtype=str(matcher.dtype).removeprefix("torch."),
        python=platform.python_version(),
        torch=str(torch.__version__),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )
