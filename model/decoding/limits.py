"""Limits of one picture in CPU time, memory and time on the clock."""

from __future__ import annotations

import importlib
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from types import ModuleType

MIB = 1024 * 1024
# Measured for 36 megapixels: 18 bytes a pixel for a lossless WebP, its file included, and 2.5 s for a PNG with 16 bits.
_BYTES_A_PIXEL = 20
_OWN_BYTES = 256 * MIB
# A machine may be several times as slow as the one measured on.
_PIXELS_A_SECOND = 8_000_000
_OWN_SECONDS = 4
# Enough for 8 megapixels.
_QUICK_SECONDS = 1
# Where other programs need the CPU, too, a second of it takes longer on the clock.
_CLOCK_PER_CPU = 5


@dataclass(frozen=True)
class Limits:
    """The most that decoding one picture may cost.

    Attributes:
        cpu_seconds, clock_seconds: until it is done. memory: bytes of the decoding process.
    """

    cpu_seconds: int
    clock_seconds: float
    memory: int

    @classmethod
    def of(cls, size: int, pixels: int) -> Limits:
        """For a file of ``size`` bytes with at most ``pixels`` pixels: several times of what ordinary pictures need."""
        cpu_seconds = _OWN_SECONDS + pixels // _PIXELS_A_SECOND
        return cls(cpu_seconds, _CLOCK_PER_CPU * cpu_seconds, _OWN_BYTES + 2 * size + _BYTES_A_PIXEL * pixels)

    def quick(self) -> Limits:
        """Limits with this memory, in the time that ordinary pictures need."""
        return replace(self, cpu_seconds=_QUICK_SECONDS, clock_seconds=_CLOCK_PER_CPU * _QUICK_SECONDS)

    def enter(self) -> None:
        """Hold this process to them from now on, as far as its system can: the time on the clock is its parent's task.

        Beyond the CPU time the system ends the process (SIGXCPU). Beyond the memory it has no more: MemoryError. Linux
        has both limits; macOS has the first, and Windows has neither. A system that forbids setting them has neither.
        """
        resource = _resource()
        if resource is None:
            return
        spent = int(time.process_time())
        _lower(resource, "RLIMIT_CPU", spent + self.cpu_seconds + 1)
        if sys.platform == "linux":
            # Not the address space: libraries that are loaded, and room that allocators only reserve, would count.
            _lower(resource, "RLIMIT_DATA", self.memory)


def without_core_dumps() -> None:
    """Let this process leave no file of its memory behind when it is ended by a signal."""
    if (resource := _resource()) is not None:
        _lower(resource, "RLIMIT_CORE", 0)


def _resource() -> ModuleType | None:
    try:
        return importlib.import_module("resource")
    except ImportError:  # Windows
        return None


def _lower(resource: ModuleType, name: str, soft: int) -> None:
    kind = getattr(resource, name)
    # A process may set its soft limit as often as it wants, up to the hard one, which is not touched.
    hard = resource.getrlimit(kind)[1]
    with suppress(OSError, ValueError):
        resource.setrlimit(kind, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
