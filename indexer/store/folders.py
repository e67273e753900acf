"""Folders of photos: on this machine, in albums of one file, and on servers. All are read in the same way."""

import errno
import os
import re
import threading
import weakref
import zipfile
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import IO, ClassVar, Literal

from cachetools import LRUCache

from sketch_search.indexer.store import files
from sketch_search.model.files import open_regular
from sketch_search.model.terminal import expand_home, resolve

#: The address of a folder of photos: a path, or a URL.
Address = str | os.PathLike[str]
_NS = 10**9
# Bytes of a file that are read at a time to compare it.
_PART = 1 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a folder; "special" is a pipe, socket or device. ``reason``: why a file cannot be read."""

    name: str
    kind: Literal["file", "folder", "link", "special"]
    stamp: files.FileStamp | None = None
    reason: str = ""


# Endings of archives in which people get photos, and which have no table of their files.
_OTHER_ARCHIVES = frozenset({".tgz", ".gz", ".tar", ".tbz", ".tbz2", ".bz2", ".txz", ".xz", ".7z", ".rar", ".zst"})
#: Files marking the files beside them as not media, such as the pictures of a program, or PhotoPrism's storage.
MARKERS = frozenset({".nomedia", ".ppstorage"})
#: The name of a file that stands for one that iCloud keeps elsewhere.
PLACEHOLDER = re.compile(r"\.(.+)\.icloud", re.DOTALL)


def is_hidden(name: str) -> bool:
    return name.startswith(".") and name not in MARKERS and not PLACEHOLDER.fullmatch(name)


#: Lists one folder, given its path in the root ('' for the root itself), in any order and without hidden names.
#: Raises OSError.
Listing = Callable[[str], Sequence[Entry]]


@dataclass(frozen=True)
class LocalFolder:
    """A folder on this machine; ``str`` is its address. Paths are by ``text_of_name``, and never lead out of it.

    If a folder is ``remote``, reading mostly waits, and may fail for a while.
    """

    path: Path
    remote: ClassVar[bool] = False
    _misfit: ClassVar[str] = "is not a folder"

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """The name that paths of its files begin with if there are several roots."""
        return self.path.name or "root"

    def problem(self) -> str | None:
        """Returns why it cannot be a folder of photos, as a predicate; None if it may be one. Contacts no server."""
        if self.is_there():
            return None
        if self.path.is_file() and self.path.suffix.lower() in _OTHER_ARCHIVES:
            return "is an archive that is not read: unpack it, or save it as ZIP, which Google's Takeout also offers"
        return self._misfit if self.path.exists() else "does not exist"

    def is_there(self) -> bool:
        """Returns True if the folder can be listed now."""
        return self.path.is_dir()

    def holds(self, other: object) -> bool:
        """Returns True if the other folder is this one or lies in it."""
        # An album in a folder is not part of the folder's photos.
        return type(other) is LocalFolder and other.path.is_relative_to(self.path)

    def listing(self) -> Listing:
        """Begins a listing of the folder as it is now."""
        return self._list

    def _list(self, folder: str) -> Sequence[Entry]:
        with os.scandir(self.path / folder) as entries:
            return [_entry(entry) for entry in entries if not is_hidden(entry.name)]

    def read(self, path: str, listed: files.FileStamp | None = None) -> files.FileContent:
        """Reads a file; ``listed`` is its stamp, to save a request. Raises FileChanging."""
        with files.open_below(self.path, path) as (file, status):
            if status.st_size > files.MAX_FILE_BYTES:
                raise OSError(errno.EFBIG, f"larger than {files.MAX_FILE_BYTES >> 20} MiB", path)
            # One byte more than expected, however fast it grows.
            data = file.read(status.st_size + 1)
            after = os.fstat(file.fileno())
            if (after.st_size, after.st_mtime_ns) != (len(data), status.st_mtime_ns):
                raise files.FileChanging(errno.EAGAIN, "it changed while being read", path)
            return files.FileContent(data, files.FileStamp.of(status))

    def read_part(self, path: str, count: int, *, start: int = 0, size: int | None = None) -> bytes:
        """Reads at most ``count`` bytes of a file. Raises FileChanging if its size has changed."""
        with files.open_below(self.path, path) as (file, status):
            if size not in (None, status.st_size):
                raise files.FileChanging(errno.EAGAIN, "its size has changed", path)
            file.seek(start)
            return file.read(count)

    def stamp(self, path: str) -> files.FileStamp:
        """Returns the stamp of a file as it is now."""
        with files.open_below(self.path, path) as (_, status):
            return files.FileStamp.of(status)

    def digest(self, path: str) -> files.FileDigest:
        """Reads a file to compare it with another, with only a part of it in memory. Raises FileChanging."""
        stamp = self.stamp(path)
        starts = range(0, stamp.size, _PART)
        digest = files.FileDigest.of((self.read_part(path, _PART, start=at, size=stamp.size) for at in starts), stamp)
        if self.stamp(path) != stamp:
            raise files.FileChanging(errno.EAGAIN, "it changed while being read", path)
        return digest

    def address_of(self, path: str) -> str:
        """Returns the address of a file or folder in it: a path on this machine, or a URL."""
        return str(self.path / files.name_of_text(path))

    def path_of(self, address: str) -> str | None:
        """Returns the path in this folder of what is at an address, '' for the folder itself; None if it is outside."""
        if "://" in address:
            return None
        # If the last part is a link, it is not followed, because the index holds no links.
        full = Path(os.path.abspath(expand_home(address)))
        full = resolve(full.parent) / full.name
        if not full.is_relative_to(self.path):
            return None
        inside = full.relative_to(self.path).as_posix()
        return "" if inside == "." else files.text_of_name(inside)


def _entry(scanned: os.DirEntry[str]) -> Entry:
    if scanned.is_symlink():
        return Entry(scanned.name, "link")
    if scanned.is_dir(follow_symlinks=False):
        return Entry(scanned.name, "folder")
    if not scanned.is_file(follow_symlinks=False):
        return Entry(scanned.name, "special")
    try:
        return Entry(scanned.name, "file", files.FileStamp.of(scanned.stat(follow_symlinks=False)))
    except OSError as error:
        return Entry(scanned.name, "file", reason=str(error.strerror))


class Album(LocalFolder):
    """A ZIP file on this machine, the form in which services export a person's photos. It is never unpacked to disk."""

    _misfit = "is not a regular file"

    def is_there(self) -> bool:
        return self.path.is_file()

    def holds(self, other: object) -> bool:
        return self == other

    def listing(self) -> Listing:
        return listing_of(
            Entry(name, "link" if info.external_attr >> 28 == 0o12 else "file", _stamp(info))
            for name, info in self._opened()[1].items()
        )

    def read(self, path: str, listed: files.FileStamp | None = None) -> files.FileContent:
        info = self._info(path)
        return files.FileContent(self._unpack(info, 0, info.file_size), _stamp(info))

    def read_part(self, path: str, count: int, *, start: int = 0, size: int | None = None) -> bytes:
        info = self._info(path)
        if size not in (None, info.file_size):
            raise files.FileChanging(errno.EAGAIN, "its size has changed", path)
        return self._unpack(info, start, count)

    def stamp(self, path: str) -> files.FileStamp:
        return _stamp(self._info(path))

    def _info(self, path: str) -> zipfile.ZipInfo:
        files.safe_parts(path)
        try:
            info = self._opened()[1][files.name_of_text(path)]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "it is not in the album", path) from None
        if info.file_size > files.MAX_FILE_BYTES:
            raise OSError(errno.EFBIG, f"larger than {files.MAX_FILE_BYTES >> 20} MiB", path)
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # Python unpacks a whole block of bzip2 or LZMA, however large, and does not support all other methods.
            packer = _PACKERS.get(info.compress_type, f"method {info.compress_type}")
            raise OSError(errno.ENOTSUP, f"it is compressed by {packer}; compress the album again with deflate", path)
        return info

    def _unpack(self, info: zipfile.ZipInfo, start: int, count: int) -> bytes:
        try:
            with _reading:
                album, file = _streams.pop((info, start), (None, None))
            if album is None or file is None:
                album, _ = self._opened()
                file = album.open(info)
                file.seek(start)
            data = file.read(count)
        # Its parts are untrusted bytes, and reading them may raise anything from zlib.error to RuntimeError.
        except Exception as error:
            reason = "it is encrypted" if info.flag_bits & 1 else "the album is damaged at this file"
            raise OSError(errno.EIO, f"{reason}; get the album again", info.filename) from error
        if start + len(data) < info.file_size:
            with _reading:
                _streams[info, start + len(data)] = album, file
        return data

    def _opened(self) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
        status = self.path.stat()
        try:
            return _opened(self.path, status.st_size, status.st_mtime_ns)
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            unknown = "SKETCH_SEARCH_ZIP_ENCODING" in str(error)
            reason = str(error) if unknown else "not a complete ZIP file; copy or download it again"
            raise OSError(errno.EINVAL, reason, str(self.path)) from error


# Files that are read in parts, by the place where the next part begins: to unpack them again from their beginning for
# each part would take the square of their size. A ZipInfo stands for itself alone, so for one opening of its album.
_streams: LRUCache[tuple[zipfile.ZipInfo, int], tuple[zipfile.ZipFile, IO[bytes]]] = LRUCache(64)
_reading = threading.Lock()


@lru_cache(maxsize=4)
def _opened(path: Path, size: int, mtime: int) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
    """Opens an album, which stays open because reading its table takes long, and its files by their paths."""
    file = open_regular(path)
    try:
        album = zipfile.ZipFile(file)
        infos = album.infolist()
        # Programs of Windows separate folders by backslashes; elsewhere they are characters like others.
        windows = not any("/" in info.filename for info in infos)
        by_path = {_path_of(info, windows or info.create_system == 0): info for info in infos}
    except BaseException:
        file.close()
        raise
    # The file is closed when it is no longer read.
    weakref.finalize(album, file.close)
    return album, {name: info for name, info in by_path.items() if not name.endswith("/")}


def _path_of(info: zipfile.ZipInfo, backslashes: bool) -> str:
    """Decodes a path: many write UTF-8 without saying so. Raises ValueError for a bad SKETCH_SEARCH_ZIP_ENCODING."""
    path = info.filename
    if not info.flag_bits & 0x800:
        other = os.environ.get("SKETCH_SEARCH_ZIP_ENCODING") or "cp437"
        raw = path.encode("cp437")
        try:
            path = raw.decode()
        except UnicodeDecodeError:
            try:
                path = raw.decode(other)
            except UnicodeDecodeError:
                pass  # it is of another encoding, and keeps the name that Python reads
            except LookupError as error:
                raise ValueError(
                    f"SKETCH_SEARCH_ZIP_ENCODING={other} is not an encoding, such as cp932 or gb18030"
                ) from error
    return path.replace("\\", "/") if backslashes else path


# Compression methods of some programs that are not supported.
_PACKERS = {9: "deflate64", 12: "bzip2", 14: "LZMA", 93: "zstandard", 95: "xz"}


def _stamp(info: zipfile.ZipInfo) -> files.FileStamp:
    changed = None
    # Albums do not state the time zone of their times, and the first of all is that of programs that know none.
    with suppress(ValueError):
        if info.date_time > (1980, 1, 1, 0, 0, 0):
            changed = int(datetime(*info.date_time, tzinfo=UTC).timestamp()) * _NS
    return files.FileStamp.make(info.file_size, changed, info.CRC)


def listing_of(entries: Iterable[Entry]) -> Listing:
    """Makes the listing of a root from all its files, whose names are their paths in it."""
    # Of several files with one name the last counts, as it does when one is read.
    inside: dict[str, Entry] = {}
    outside: list[Entry] = []
    for file in entries:
        try:
            files.safe_parts(files.text_of_name(file.name))
            inside[file.name] = file
        except PermissionError as error:
            outside.append(Entry(file.name, "file", reason=str(error.strerror)))
    # Folders are found by search, because the paths of all folders would take the square of a long path's length.
    names = sorted(inside)

    def listing(folder: str) -> list[Entry]:
        start = f"{folder}/" if folder else ""
        inner = [] if folder else [*outside]
        at = bisect_left(names, start)
        while at < len(names) and names[at].startswith(start):
            path = names[at]
            name, slash, _ = path[len(start) :].partition("/")
            if not is_hidden(name):
                inner.append(Entry(name, "folder") if slash else replace(inside[path], name=name))
            # "0" follows "/", which skips the folder's other files.
            at = bisect_left(names, f"{start}{name}0", at) if slash else at + 1
        return inner

    return listing
