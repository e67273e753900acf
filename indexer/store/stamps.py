"""What a file's size and time were when it was read, by which a later build sees whether the file has changed."""

from __future__ import annotations

import os
from dataclasses import dataclass

# How SQLite keeps a file without a stamp: no file has this size, and its columns hold no NULL.
_NO_STAMP = (-1, 0)


@dataclass(frozen=True)
class FileStamp:
    """Size in bytes and modification time in ns of a file."""

    size: int
    mtime: int

    @staticmethod
    def of(status: os.stat_result) -> FileStamp:
        """The stamp of a file by what the system says about it."""
        return FileStamp(status.st_size, status.st_mtime_ns)


def to_columns(stamp: FileStamp | None) -> tuple[int, int]:
    """The stamp as two columns of a table, size and mtime."""
    return _NO_STAMP if stamp is None else (stamp.size, stamp.mtime)


def from_columns(size: int, mtime: int) -> FileStamp | None:
    """The stamp that two columns of a table hold; None where the file has none."""
    return None if (size, mtime) == _NO_STAMP else FileStamp(size, mtime)
