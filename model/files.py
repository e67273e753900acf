"""Reads files from untrusted sources, and overwrites only this program's own files."""

import errno
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from io import BufferedReader
from pathlib import Path

from sketch_search.model.errors import UserError

#: Files that this program writes for people begin with it, so that they can be replaced later.
MARK = "sketch-search"
# A photo side is named by its hash, to which nothing can be added.
_MARKS = (MARK.encode(), b'{"photo-side":')
_SEARCHED = 1 << 16
_NO_FOLLOW, _BINARY = getattr(os, "O_NOFOLLOW", 0), getattr(os, "O_BINARY", 0)


def open_regular(path: Path, *, links: bool = True) -> BufferedReader:
    """Opens a file to read it. Raises OSError for a pipe or device, and without ``links`` for a symbolic link."""
    flags = ("O_NONBLOCK", "O_BINARY") if links else ("O_NONBLOCK", "O_BINARY", "O_NOFOLLOW")
    descriptor = os.open(path, os.O_RDONLY | sum(getattr(os, flag, 0) for flag in flags))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def read_regular(path: Path, most: int, *, links: bool = True) -> bytes:
    """Reads the bytes of a file. Raises OSError as ``open_regular`` does, and for more than ``most``."""
    with open_regular(path, links=links) as file:
        # read(n) uses n bytes of memory even for a short file, so it reads no more than the file's size.
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(errno.EFBIG, "far too large", str(path))
        return file.read(size)


def write_files(files: Mapping[Path, bytes]) -> None:
    """Writes files for people with MARK, all or none. Raises as ``check_replaceable`` does, and OSError."""
    for file in files:
        check_replaceable(file)
    for file, data in files.items():
        file.unlink(missing_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW | _BINARY, 0o666)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(data)


def check_replaceable(path: Path) -> None:
    """Raises UserError if ``path`` exists and was not written by this program, such as a link."""
    if not os.path.lexists(path):
        return
    with suppress(OSError), open_regular(path, links=False) as file:
        begins = file.read(_SEARCHED)
        if any(mark in begins for mark in _MARKS):
            return
    what = "is a symbolic link" if path.is_symlink() else "was not written by this program"
    raise UserError(f"{path} {what} and is not overwritten; move it away, or choose another place.")
