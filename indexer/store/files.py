"""Writes files as a whole, reads them below a root without links or '..', and turns their names into text."""

import errno
import hashlib
import os
import re
import stat
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import BinaryIO
from unicodedata import normalize

from sketch_search.model.files import open_regular

# A character that is not valid Unicode: Python's sign for a byte that is not UTF-8, or half a surrogate pair.
_NO_CHARACTER = re.compile(r"(\\*)([\ud800-\udfff])")
# Text in a name that looks like the escape of such a character.
_LOOKALIKE = re.compile(r"(\\+)(ud[89a-f][0-9a-f]{2})")
# A character, as Python prints it, that is unsafe on a terminal.
_PRINTED = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|[nrt])")
# The most spellings of a path that are tried: enough for six folders with accents.
_MOST_SPELLINGS = 64
# Larger files are not photos, and reading one would use up the memory.
MAX_FILE_BYTES = 512 * 2**20
# The bounds of SQLite's integers of eight bytes. A time in ns beyond them, from 2262 on, cannot be that of a photo.
MIN_TIME, MAX_TIME = -(2**63), 2**63 - 1


def text_of_name(name: str) -> str:
    r"""Writes a file name as text: ``\udce9`` for a byte that is no UTF-8; backslashes before escapes are doubled."""
    text = _LOOKALIKE.sub(lambda match: match[1] * 2 + match[2], name)
    return _NO_CHARACTER.sub(lambda match: f"{match[1] * 2}\\u{ord(match[2]):04x}", text)


def name_of_text(text: str) -> str:
    """Returns the file name that ``text_of_name`` wrote as this text."""

    def decoded(match: re.Match[str]) -> str:
        backslashes, escape = match[1], match[2]
        half = "\\" * (len(backslashes) // 2)
        return half + (chr(int(escape[1:], 16)) if len(backslashes) % 2 else escape)

    return _LOOKALIKE.sub(decoded, text)


def spellings(path: str) -> Iterator[str]:
    r"""Yields what a user may mean by a path: as written, with accents composed or not, without escapes."""
    for text in dict.fromkeys((path, _PRINTED.sub(_unescape, path))):
        forms = [dict.fromkeys((part, normalize("NFC", part), normalize("NFD", part))) for part in text.split("/")]
        yield from islice(("/".join(parts) for parts in product(*forms)), _MOST_SPELLINGS)


def _unescape(escape: re.Match[str]) -> str:
    digits = next((digits for digits in escape.groups() if digits), None)
    if digits is None:
        return {"n": "\n", "r": "\r", "t": "\t"}[escape[0][1]]
    number = int(digits, 16)
    # Half a surrogate pair represents a byte that is not valid text.
    if number > sys.maxunicode or chr(number).isprintable() or 0xD800 <= number < 0xE000:
        return escape[0]
    return chr(number)


def is_unicode(name: str) -> bool:
    return _NO_CHARACTER.search(name) is None


@dataclass(frozen=True, slots=True)
class FileStamp:
    """A file's size and times in ns, by which builds see changes; None for unknown or impossible times.

    ``ctime``, which programs cannot set, is of the ETag on a server, and the checksum in an album.
    """

    size: int
    mtime: int | None
    ctime: int | None

    @staticmethod
    def make(size: int, mtime: int | None, ctime: int | None) -> "FileStamp":
        return FileStamp(size, *(None if ns is None or not MIN_TIME <= ns <= MAX_TIME else ns for ns in (mtime, ctime)))

    @staticmethod
    def of(status: os.stat_result) -> "FileStamp":
        return FileStamp.make(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(frozen=True)
class FileContent:
    data: bytes
    stamp: FileStamp


# The first bytes of a file, which identify its type.
START = 512


@dataclass(frozen=True)
class FileDigest:
    """The SHA-256 of a file, hex; its stamp; and its first START bytes."""

    sha256: str
    stamp: FileStamp
    start: bytes

    @staticmethod
    def of(parts: Iterable[bytes], stamp: FileStamp) -> "FileDigest":
        """Makes the digest of a file from its parts. Raises FileChanging if they are not as long as its stamp says."""
        if stamp.size > MAX_FILE_BYTES:
            raise OSError(errno.EFBIG, f"larger than {MAX_FILE_BYTES >> 20} MiB")
        digest, start, size = hashlib.sha256(), b"", 0
        for part in parts:
            digest.update(part)
            start, size = start or part[:START], size + len(part)
        if size != stamp.size:
            raise FileChanging(errno.EAGAIN, "it changed while being read")
        return FileDigest(digest.hexdigest(), stamp, start)


class FileChanging(OSError):
    """A file changed while being read, so the bytes may mix two of its states."""


class Misled(OSError):
    """A server's answer was refused, with the reason."""


def sync_folder(folder: Path) -> None:
    """Syncs the names in ``folder``, to survive a power cut. Does nothing if the platform cannot open folders."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Replaces a file as a whole. Without ``sync``, others may write it at the same time, and it may be empty or end
    early after a power failure."""
    # The name is always the same, so that the next write removes the remains of a killed process. A link may also
    # be there, so nothing is written into an existing file.
    writer = "" if sync else f".{os.getpid()}-{threading.get_ident()}"
    temporary = path.with_name(f".{path.name}{writer}.partial")
    temporary.unlink(missing_ok=True)
    try:
        with temporary.open("xb") as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if sync:
        sync_folder(path.parent)


def hash_file(path: Path) -> str:
    """Computes the SHA-256 of a file, as hex. Raises OSError as ``open_regular`` does."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def safe_parts(relative: str) -> list[str]:
    """Splits a path into names. Raises PermissionError if it would lead out of its root."""
    parts = name_of_text(relative).split("/")
    outside = any(part in ("", ".", "..") or "\0" in part for part in parts)
    if outside or (os.name == "nt" and any(set(part) & set('\\:<>|"?*') for part in parts)):
        raise PermissionError(errno.EPERM, "the path leads outside its folder", relative)
    return parts


@contextmanager
def open_below(root: Path, relative: str) -> Iterator[tuple[BinaryIO, os.stat_result]]:
    """Opens a regular file below ``root`` by its path as text. Raises OSError.

    Not if the path leaves ``root`` or has a link below it; ``root`` itself may be a link.
    """
    parts = safe_parts(relative)
    try:
        descriptor = _open_below(root, parts) if os.open in os.supports_dir_fd else _open_checked(root, parts)
    except UnicodeEncodeError as error:
        # No file of this system can have this name.
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), relative) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", relative)
    with os.fdopen(descriptor, "rb") as file:
        yield file, status


def _open_below(root: Path, parts: list[str]) -> int:
    """Opens each part of a path from its folder, and never through a link."""
    no_follow = os.O_NOFOLLOW | os.O_CLOEXEC
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | no_follow, dir_fd=folder)
            os.close(folder)
            folder = inner
        # Non-blocking, because opening a pipe without a writer would wait forever.
        return os.open(parts[-1], os.O_RDONLY | os.O_NONBLOCK | no_follow, dir_fd=folder)
    finally:
        os.close(folder)


def _open_checked(root: Path, parts: list[str]) -> int:
    """Opens a file on a platform that cannot open folders, after each part of its path is checked."""
    path = root
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise PermissionError(errno.ELOOP, "a symbolic link is not followed", str(path))
    if not path.resolve().is_relative_to(root.resolve()):
        raise PermissionError(errno.EPERM, "the path leads outside its folder", str(path))
    return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
