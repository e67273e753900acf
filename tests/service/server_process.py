"""The server as a process of its own, as users start it."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sketch_search.service.settings import Settings
from tests.patience import PATIENCE
from tests.programs import started_python

_LIMITED = """
import resource, runpy
resource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {files}))
runpy.run_module("service", run_name="__main__", alter_sys=True)
"""


@contextmanager
def running(
    settings: Settings,
    log: Path,
    *arguments: str,
    files: int | None = None,
    output: IO[bytes] | None = None,
    **environment: str,
) -> Iterator[subprocess.Popen[str]]:
    """``python -m service`` on a free port, its log written to ``log``; ended, and waited for, with the block.

    Its output goes into a pipe, or where ``output`` says.
    """
    place = {"SBIR_INDEX": str(settings.index), "SBIR_PORT": "0"}
    if settings.weights:
        place["SBIR_WEIGHTS"] = str(settings.weights)
    # A busy machine may take seconds for a search.
    variables = {**os.environ, **place, "SBIR_QUEUE_SECONDS": str(PATIENCE), **environment}
    command = ("-m", "service", *arguments) if files is None else ("-c", _LIMITED.format(files=files))
    with (
        log.open("w") as errors,
        started_python(*command, environment=variables, errors=errors, output=output) as process,
    ):
        yield process


def address(process: subprocess.Popen[str]) -> str:
    """Returns the next address that it prints, without a token."""
    assert process.stdout is not None
    found = (re.search(r"http://[^\s/\"]+", line) for line in process.stdout)
    return next(address[0] for address in found if address is not None)
