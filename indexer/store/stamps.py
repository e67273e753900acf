"""What the system said of a file when it was read, by which a later build sees whether the file has changed."""

from __future__ import annotations

import os
from dataclasses import dataclass

# How SQLite keeps a file without a stamp: no file has this size.
_NO_STAMP = (-1, 0, None)


@dataclass(frozen=True)
class FileStamp:
    """Size in bytes, and times in ns, of a file.

    Attributes:
        mtime: of the last modification. Programs may set it to any time, also back to what it was.
        ctime: of the last change to the file or to what the system knows of it, which no program can set. None where an
            index of format 2 was read, which does not know it.
    """

    size: int
    mtime: int
    ctime: int | None = None

    @staticmethod
    def of(status: os.stat_result) -> FileStamp:
        """The stamp of a file by what the system says about it."""
        return FileStamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def may_be(self, other: FileStamp) -> bool:
        """Whether both may be stamps of the same content: nothing that both know differs."""
        same_change = None in (self.ctime, other.ctime) or self.ctime == other.ctime
        return (self.size, self.mtime) == (other.size, other.mtime) and same_change


def to_columns(stamp: FileStamp | None) -> tuple[int, int, int | None]:
    """The stamp as three columns of a table: size, mtime and ctime."""
    return _NO_STAMP if stamp is None else (stamp.size, stamp.mtime, stamp.ctime)


def from_columns(size: int, mtime: int, ctime: int | None) -> FileStamp | None:
    """The stamp that three columns of a table hold; None where the file has none."""
    return None if (size, mtime, ctime) == _NO_STAMP else FileStamp(size, mtime, ctime)
