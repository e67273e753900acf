"""Disks that are full or read-only, and permissions. A test is skipped where this user may not mount disks."""

import ctypes
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.programs import PATIENCE


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[Path]:
    """A file system of ``size`` bytes at ``place``; skips the test where it may not be mounted."""
    place.mkdir(exist_ok=True)
    if not sys.platform.startswith("linux") or not _done("mount", "-t", "tmpfs", "-o", f"size={size}", "disk", place):
        pytest.skip("needs the right to mount a small disk")
    try:
        yield place
    finally:
        # Lazily: a memory map may be waiting for its last reference to go.
        subprocess.run(["umount", "-l", place], check=True, timeout=PATIENCE)


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    """While the block runs, nothing can be written to the disk."""
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True, timeout=PATIENCE)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True, timeout=PATIENCE)


@contextmanager
def bound_by_permissions() -> Iterator[None]:
    """Permissions stop this thread, and those that it starts, even the administrator's. Skips without Linux."""
    if not sys.platform.startswith("linux"):
        pytest.skip("capabilities are Linux's")
    libc, header, held = ctypes.CDLL(None), struct.pack("Ii", 0x20080522, 0), ctypes.create_string_buffer(24)
    assert libc.capget(header, held) == 0
    # Of the first word, what is in effect, without CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH.
    effect, *others = struct.unpack("6I", held.raw)
    assert libc.capset(header, struct.pack("6I", effect & ~0b110, *others)) == 0
    try:
        yield
    finally:
        assert libc.capset(header, held.raw) == 0


def _done(*command: str | Path) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=PATIENCE).returncode == 0
    except OSError:
        return False
