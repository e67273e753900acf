"""Files on disk: written so that a crash leaves the old or the new, read so that a name cannot lead out of its root."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

# Larger files are not photos; reading one whole would take the memory of everything else.
MAX_FILE_BYTES = 512 * 2**20
_HASH_BLOCK = 2**20


@dataclass(frozen=True)
class FileContent:
    """One file as it was read: its bytes, and the size and modification time (ns) it had when it was opened."""

    data: bytes
    size: int
    mtime: int


class FileChanging(OSError):
    """A file was changed while it was read, so that what was read may be of no one state of it."""


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` survive a power cut, where the platform can open folders."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data``; a reader sees the old content or the new, never a part."""
    # One fixed name: what a killed process leaves is overwritten by the next write, and never piles up.
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)


def hash_file(path: Path) -> str:
    """SHA-256 of a file, as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


class ArrayWriter:
    """Writes one .npy file front to back, a block of rows at a time.

    Plain writes and no memory map: a full disk is then an OSError and not a signal that ends the process.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self._dtype = np.dtype(dtype)
        self._shape = shape
        self._rows = 0
        self._file: BinaryIO = path.open("wb")
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def write(self, block: npt.NDArray[np.generic]) -> None:
        """Append rows; ``block`` is (m, ...) with the shape and dtype given at the start."""
        if block.shape[1:] != self._shape[1:] or block.dtype != self._dtype:
            raise ValueError(f"expected rows {self._shape[1:]} {self._dtype}, not {block.shape[1:]} {block.dtype}")
        self._file.write(np.ascontiguousarray(block).tobytes())
        self._rows += len(block)

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._file:
            if kind is not None:
                return
            if self._rows != self._shape[0]:
                raise ValueError(f"{self._rows} rows were written where {self._shape[0]} were promised")
            self._file.flush()
            os.fsync(self._file.fileno())


def write_array(path: Path, array: npt.NDArray[np.generic]) -> None:
    """Write one whole array as .npy, synced."""
    with ArrayWriter(path, array.shape, array.dtype) as writer:
        writer.write(array)


def _safe_parts(relative: str) -> list[str]:
    parts = relative.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise PermissionError(errno.EPERM, "the path leads out of its folder", relative)
    if os.name == "nt" and any(set(part) & set('\\:<>|"?*') for part in parts):
        raise PermissionError(errno.EPERM, "the path leads out of its folder", relative)
    return parts


def _open_below(root: Path, parts: list[str]) -> int:
    """A descriptor of ``root``/parts, every step taken from the folder before it and never through a link."""
    no_follow = os.O_NOFOLLOW | os.O_CLOEXEC
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | no_follow, dir_fd=folder)
            os.close(folder)
            folder = inner
        # Non-blocking, or opening a pipe that nobody writes to would wait for ever.
        return os.open(parts[-1], os.O_RDONLY | os.O_NONBLOCK | no_follow, dir_fd=folder)
    finally:
        os.close(folder)


def _open_checked(root: Path, parts: list[str]) -> int:
    """The same where folders cannot be opened: every step is looked at first."""
    path = root
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise PermissionError(errno.ELOOP, "a symbolic link is not followed", str(path))
    if not path.resolve().is_relative_to(root.resolve()):
        raise PermissionError(errno.EPERM, "the path leads out of its folder", str(path))
    return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))


def read_below(root: Path, relative: str, *, max_bytes: int = MAX_FILE_BYTES) -> FileContent:
    """Read the regular file ``relative`` ('/'-separated) below ``root``.

    Raises:
        OSError: it is missing, unreadable, too large, not a regular file, would leave ``root`` ('..', an absolute
            path), or has a symbolic link anywhere below ``root``. ``root`` itself may be a link.
        FileChanging: somebody is writing it.
    """
    parts = _safe_parts(relative)
    descriptor = _open_below(root, parts) if os.open in os.supports_dir_fd else _open_checked(root, parts)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", relative)
        if status.st_size > max_bytes:
            raise OSError(errno.EFBIG, f"larger than {max_bytes >> 20} MiB", relative)
        data = file.read(max_bytes)
        after = os.fstat(file.fileno())
        if (after.st_size, after.st_mtime_ns) != (len(data), status.st_mtime_ns):
            raise FileChanging(errno.EAGAIN, "it changed while it was read", relative)
        return FileContent(data, status.st_size, status.st_mtime_ns)
