"""Which files this process has open."""

import os
from contextlib import suppress
from pathlib import Path

import pytest


def files_open_below(folder: Path) -> list[str]:
    """The files below a folder that this process has open, or mapped into memory."""
    if not Path("/proc/self/maps").exists():
        pytest.skip("open files are listed in /proc")
    found = Path("/proc/self/maps").read_text().splitlines()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # another thread may have closed it
            found.append(os.readlink(link))
    return [line for line in found if f"{folder}/" in line]
