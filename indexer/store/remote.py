"""Folders on servers: S3 and SFTP by fsspec, and WebDAV, whose libraries are loaded only when needed.

Credentials are never in a URL, and errors of libraries are not passed on, because they may repeat them.
"""

from __future__ import annotations

import errno
import hashlib
import importlib
import importlib.util
import netrc
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar
from urllib.parse import quote, unquote, urlsplit
from xml.etree import ElementTree

from cachetools import LRUCache

from sketch_search.indexer.errors import BadInvocation
from sketch_search.indexer.store import files
from sketch_search.indexer.store.files import Misled
from sketch_search.indexer.store.folders import Entry, Listing, LocalFolder, is_hidden, listing_of

if TYPE_CHECKING:
    import httpx

_MAX_REDIRECTS = 5
_SIZE = re.compile(r"[0-9]{1,15}")


class WebDavServer:
    """A server at ``http://HOST:PORT``; paths begin without a slash, unquoted. Timeouts are in seconds."""

    def __init__(self, http: httpx.Client, passwords: Path) -> None:
        """http: with the server's address. passwords: a .netrc file, which need not exist."""
        self.http, self._passwords = http, passwords

    def info(self, path: str, timeout: float) -> dict[str, Any]:
        """Describes a file or folder as fsspec does: its name, type, size, etag, and when it was modified."""
        for entry in self._entries(path, 0, timeout):
            return entry
        raise FileNotFoundError(errno.ENOENT, "nothing is at its address", path)

    def ls(self, path: str, timeout: float) -> list[dict[str, Any]]:
        """Describes a folder and its contents, as listed by the server."""
        entries = [*self._entries(path, 1, timeout)]
        if not any(entry["name"] == path and entry["type"] == "directory" for entry in entries):
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", path)
        return entries

    def part(self, path: str, start: int, count: int, timeout: float) -> bytes:
        """Reads at most ``count`` bytes of a file, from byte ``start`` on."""
        ranged = {"Range": f"bytes={start}-{start + count - 1}"} if start else {}
        with self._answer("GET", path, ranged) as answer:
            # A server that knows no ranges sends the file from its beginning.
            skipped = 0 if answer.status_code == HTTPStatus.PARTIAL_CONTENT else start
            data = bytearray()
            for chunk in _receive(answer, timeout):
                data += chunk[skipped:][: count - len(data)]
                skipped = max(0, skipped - len(chunk))
                if len(data) >= count:
                    break
            return bytes(data)

    def _entries(self, path: str, depth: int, timeout: float) -> Iterator[dict[str, Any]]:
        with self._answer("PROPFIND", path, {"Depth": str(depth)}) as answer:
            listing = b"".join(_receive(answer, timeout))
        # All entries together would take 25 times the bytes of the listing.
        for _, element in ElementTree.iterparse(BytesIO(listing)):
            if element.tag == "{DAV:}response":
                with suppress(ValueError):  # the entry's address is none
                    yield _describe(element)
                element.clear()

    @contextmanager
    def _answer(self, method: str, path: str, headers: dict[str, str]) -> Iterator[httpx.Response]:
        """Yields the answer to a request. Follows redirects on the same server alone."""
        import httpx

        auth = httpx.NetRCAuth(str(self._passwords)) if self._passwords.is_file() else None
        url = self.http.base_url.join("/" + quote(path, errors="surrogateescape"))
        for _ in range(_MAX_REDIRECTS):
            with self.http.stream(method, url, headers=headers, auth=auth) as answer:
                if not answer.has_redirect_location:
                    answer.raise_for_status()
                    yield answer
                    return
                target = answer.url.join(answer.headers["Location"])
            if (target.scheme, target.host, target.port) != (url.scheme, url.host, url.port):
                raise Misled(errno.EPERM, "the server redirects to another address; use that one", path)
            url = target
        raise Misled(errno.ELOOP, "the server redirects endlessly", path)


def _receive(answer: httpx.Response, timeout: float) -> Iterator[bytes]:
    """Yields an answer as it arrives. Raises TimeoutError if that takes longer: httpx begins anew with each byte."""
    until = time.monotonic() + timeout
    for chunk in answer.iter_bytes():
        if time.monotonic() > until:
            raise TimeoutError
        yield chunk


def _describe(response: ElementTree.Element) -> dict[str, Any]:
    href = urlsplit(response.findtext("{DAV:}href", "")).path
    folder = response.find(".//{DAV:}resourcetype/{DAV:}collection") is not None
    size = response.findtext(".//{DAV:}getcontentlength", "0" if folder else "").strip()
    modified = None
    with suppress(ValueError, OverflowError):
        modified = parsedate_to_datetime(response.findtext(".//{DAV:}getlastmodified", ""))
    return {
        "name": unquote(href, errors="surrogateescape").strip("/"),
        # What has no size, or an impossible one, is no file that can be read.
        "type": "directory" if folder else "file" if _SIZE.fullmatch(size) else "other",
        "size": int(size) if _SIZE.fullmatch(size) else 0,
        "etag": response.findtext(".//{DAV:}getetag"),
        "modified": modified,
    }


# The library for each scheme of an address. The extra "remote" installs those of S3 and SFTP.
_LIBRARIES = {"s3": "s3fs", "sftp": "sshfs", "webdav": "httpx", "webdavs": "httpx"}
_INSTALL = "run `pip install 'sketch-search[remote]'`"
_HOST = re.compile(r"(?:([^@:/]+)@)?(\[[\da-fA-F:.]+\]|[^@:/\[\]]+)(?::(\d{1,5}))?")
# Seconds for a server to accept a connection, to answer a request, and to send a whole listing or part of a file.
_CONNECT, _ANSWER, _LONGEST = 10, 60, 600
# The number of tries of a request whose failure may be temporary. The first pause has this many seconds, and later
# pauses are longer. The library of S3 does that itself.
_TRIES, _PAUSE = 3, 0.5
# Bytes of a file in one SFTP request, and how many of these requests are under way. asyncssh accepts up to 4
# MiB for each, whatever was asked for.
_BLOCK, _BLOCKS = 2**16, 32
# The most requests to one server at a time.
_AT_ONCE = 32
# Bytes of recently read files that are kept, because a file is often read in parts, one soon after the other.
_KEPT = 64 * 2**20
# Bytes of a larger file that are asked for at a time.
_PART = 16 * 2**20
Answer = TypeVar("Answer")


class Unreachable(OSError):
    """A server does not answer, or answers incompletely. It may answer later."""


@dataclass(frozen=True)
class RemoteFolder:
    """A folder on a server, by ``url`` without a slash at its end; its methods are those of a ``LocalFolder``."""

    url: str
    remote: ClassVar[bool] = True

    @staticmethod
    def at(address: str) -> RemoteFolder:
        """Makes the folder at a URL. Raises BadInvocation, which repeats no part that may be a password."""
        scheme, _, rest = address.partition("://")
        scheme, (netloc, _, path) = scheme.lower(), rest.partition("/")
        if scheme not in _LIBRARIES:
            schemes = ", ".join(f"{known}://" for known in _LIBRARIES)
            raise BadInvocation(f"photos cannot be read from {scheme[:20]}:// addresses, only from: {schemes}.")
        host = _HOST.fullmatch(netloc)
        # A key may contain a slash, so that the rest of the key looks like a path, or a password begin like a port.
        hidden = host is not None and ("%3a" in (host[1] or "").lower() or (host[3] and "@" in path.partition("/")[0]))
        if host is None or hidden or (host[1] and scheme != "sftp") or (host[3] and scheme == "s3"):
            raise BadInvocation(
                f"this {scheme}:// address names no {'bucket' if scheme == 's3' else 'server'}, or has a password in "
                "it, which others could see; leave it out: docs/using.md says where to put credentials."
            )
        if "?" in path or "#" in path or ".." in path.split("/"):
            raise BadInvocation(f"this {scheme}:// address has a '?', '#' or '..' in it; name the folder itself.")
        return RemoteFolder(f"{scheme}://{netloc}/{path}".rstrip("/"))

    def __str__(self) -> str:
        return self.url

    @property
    def _scheme(self) -> str:
        return self.url.partition("://")[0]

    @property
    def _netloc(self) -> str:
        return self.url.partition("://")[2].partition("/")[0]

    @property
    def _top(self) -> str:
        """The path of the folder on its server, without a slash at the beginning."""
        path = self.url.partition("://")[2].partition("/")[2]
        return path if self._scheme == "s3" else unquote(path)

    @property
    def name(self) -> str:
        host = _HOST.fullmatch(self._netloc)
        return self._top.rpartition("/")[2] or (host[2] if host is not None else "photos")

    def problem(self) -> str | None:
        library = _LIBRARIES[self._scheme]
        missing = importlib.util.find_spec(library) is None
        return f"needs {library}, which is not installed; {_INSTALL}" if missing else None

    def is_there(self) -> bool:
        with suppress(OSError):
            self._ask(lambda server: server.info(self._at(""), timeout=_LONGEST))
            return True
        return False

    def holds(self, other: object) -> bool:
        return isinstance(other, RemoteFolder) and (other.url == self.url or other.url.startswith(f"{self.url}/"))

    def listing(self) -> Listing:
        if self._scheme != "s3":
            return self._list
        top = self._at("")
        # This takes one request for each thousand files, however many folders they are in.
        entries = self._ask(lambda server: server.find(top, detail=True))
        return listing_of(_below(entries.values(), f"{top}/"))

    def _list(self, folder: str) -> Sequence[Entry]:
        at = self._at(folder)
        infos = self._ask(lambda server: server.ls(at, timeout=_LONGEST))
        entries = _below(infos, at if at in ("", "/") else f"{at}/")
        # A server may list anything, even names outside this folder.
        return [entry for entry in entries if not is_hidden(entry.name) and "/" not in entry.name]

    def read(self, path: str, listed: files.FileStamp | None = None) -> files.FileContent:
        at = self._at_file(path)
        stamp = listed or self.stamp(path)
        if (size := stamp.size) > files.MAX_FILE_BYTES:
            raise OSError(errno.EFBIG, f"larger than {files.MAX_FILE_BYTES >> 20} MiB", path)
        # One byte more than expected; S3 refuses to send a part of an empty object.
        data = self._ask(lambda server: self._part(server, at, 0, size + 1)) if size else b""
        if len(data) != size:
            raise files.FileChanging(errno.EAGAIN, "it changed while being read, or arrived only in part", path)
        if listed is None:
            with _keeping, suppress(ValueError):
                # A file that is larger than the whole cache is not kept.
                _kept[self.url, path] = data
        return files.FileContent(data, stamp)

    def read_part(self, path: str, count: int, *, start: int = 0, size: int | None = None) -> bytes:
        with _keeping:
            data = _kept.get((self.url, path))
        if data is not None and size in (None, len(data)):
            return data[start : start + count]
        at, end = self._at_file(path), start + count if size is None else min(start + count, size)
        part = self._ask(lambda server: self._part(server, at, start, end - start)) if end > start else b""
        if size is not None and len(part) < end - start:
            raise files.FileChanging(errno.EAGAIN, "its size has changed", path)
        return part

    def digest(self, path: str) -> files.FileDigest:
        stamp = self.stamp(path)
        if stamp.size <= _KEPT:
            content = self.read(path)
            return files.FileDigest.of([content.data], content.stamp)
        starts = range(0, stamp.size, _PART)
        return files.FileDigest.of((self.read_part(path, _PART, start=at, size=stamp.size) for at in starts), stamp)

    def stamp(self, path: str) -> files.FileStamp:
        at = self._at_file(path)
        stamp = _entry(self._ask(lambda server: server.info(at, timeout=_LONGEST)), at).stamp
        if stamp is None:
            raise OSError(errno.EINVAL, "not a file", path)
        return stamp

    def address_of(self, path: str) -> str:
        name = files.name_of_text(path)
        inside = name if self._scheme == "s3" else quote(name, errors="surrogateescape")
        return f"{self.url}/{inside}" if path else self.url

    def path_of(self, address: str) -> str | None:
        address = address.rstrip("/")
        if address != self.url and not address.startswith(f"{self.url}/"):
            return None
        inside = address[len(self.url) + 1 :]
        return files.text_of_name(inside if self._scheme == "s3" else unquote(inside, errors="surrogateescape"))

    def _at_file(self, path: str) -> str:
        return self._at("/".join(files.safe_parts(path)))

    def _at(self, inside: str) -> str:
        path = "/".join(part for part in (self._top, inside) if part)
        if self._scheme == "s3":
            return f"{self._netloc}/{path}".rstrip("/")
        if self._scheme == "sftp":
            return path.removeprefix("~/") if path.startswith("~/") else f"/{path}"
        return path

    def _part(self, server: Any, at: str, start: int, count: int) -> bytes:
        """Reads at most ``count`` bytes of a file by one request."""
        if self._scheme == "sftp":
            from fsspec.asyn import sync

            return bytes(sync(server.loop, _part_of_file, server, at, start, count, timeout=_LONGEST))
        if self._scheme == "s3":
            return bytes(server.cat_file(at, start=start, end=start + count, timeout=_LONGEST))
        return bytes(server.part(at, start, count, timeout=_LONGEST))

    def _ask(self, question: Callable[[Any], Answer]) -> Answer:
        """Sends a request to a server. Raises OSError; Unreachable if a temporary failure persists over all tries."""
        key = self._scheme, self._netloc
        left, pause = 1 if self._scheme == "s3" else _TRIES, _PAUSE
        while True:
            left, pause, server = left - 1, 2 * pause, None
            try:
                with _opening:
                    connecting = _connecting.setdefault(key, threading.Lock())
                # One that does not answer keeps no other waiting.
                with connecting:
                    server = _open[key] if key in _open else _open.setdefault(key, _connect(*key))
                return question(server)
            except MemoryError:
                raise
            # Libraries raise their own errors and those of underlying libraries.
            except Exception as error:
                fault = _fault(error, self._scheme)
            with _opening:
                # The next try connects again. The other libraries do that by themselves.
                if self._scheme == "sftp" and _open.get(key) is server:
                    _open.pop(key, None)
            if not left or not isinstance(fault, Unreachable):
                raise fault
            time.sleep(pause)


def _below(infos: Iterable[Mapping[str, Any]], start: str) -> list[Entry]:
    """Makes the entries of everything below a folder, whose path with a slash is ``start``."""
    names = ((info, str(info["name"])) for info in infos)
    return [
        _entry(info, name[len(start) :])
        for info, name in names
        if name.startswith(start) and name != start and not name.endswith("/")
    ]


def _entry(info: Mapping[str, Any], name: str) -> Entry:
    kind, size = info["type"], info.get("size") or 0
    if kind == "directory":
        return Entry(name, "folder")
    if kind != "file" or not 0 <= size < 2**63:
        return Entry(name, "link" if kind == "link" else "special")
    changed = next((info[key] for key in ("LastModified", "modified", "mtime") if info.get(key)), None)
    nanoseconds = number = None
    if isinstance(changed, datetime):
        changed = changed if changed.tzinfo is not None else changed.replace(tzinfo=UTC)
        nanoseconds = round(changed.timestamp() * 10**6) * 1000
    if tag := info.get("ETag") or info.get("etag"):
        number = int.from_bytes(hashlib.sha256(str(tag).encode()).digest()[:8], "big", signed=True)
    return Entry(name, "file", files.FileStamp.make(size, nanoseconds, number))


# The connections to servers, one for each, by scheme and address. All threads share them.
_open: dict[tuple[str, str], Any] = {}
_opening = threading.Lock()
_connecting: dict[tuple[str, str], threading.Lock] = {}
# The bytes of recently read files, by their folder's URL and their path in it.
_kept: LRUCache[tuple[str, str], bytes] = LRUCache(_KEPT, getsizeof=len)
_keeping = threading.Lock()


def _connect(scheme: str, netloc: str) -> Any:
    library = importlib.import_module(_LIBRARIES[scheme])
    if scheme == "s3":
        config = {"connect_timeout": _CONNECT, "read_timeout": _ANSWER, "max_pool_connections": _AT_ONCE}
        return library.S3FileSystem(config_kwargs=config, use_listings_cache=False, skip_instance_cache=True)
    host = _HOST.fullmatch(netloc)
    if host is None:
        raise BadInvocation(f"a {scheme}:// address names no server.")
    if scheme == "sftp":
        named = {"username": host[1], "port": int(host[3]) if host[3] else None}
        return library.SSHFileSystem(
            host[2].strip("[]"),
            **{name: value for name, value in named.items() if value is not None},
            # An empty tuple means the hosts that ssh knows. The library's default is to trust every server.
            known_hosts=(),
            connect_timeout=_CONNECT,
            login_timeout=_ANSWER,
            keepalive_interval=_ANSWER / 4,
            sftp_client_kwargs={"path_errors": "surrogateescape"},
            skip_instance_cache=True,
        )
    http = library.Client(
        base_url=f"{'https' if scheme == 'webdavs' else 'http'}://{netloc}",
        timeout=library.Timeout(_ANSWER, connect=_CONNECT),
        limits=library.Limits(max_connections=_AT_ONCE),
    )
    return WebDavServer(http, Path(os.environ.get("NETRC") or Path.home() / ".netrc"))


async def _part_of_file(server: Any, at: str, start: int, count: int) -> bytes:
    """Reads a part of a file of an SFTP server. The public methods of sshfs read all of it, or wait without end."""
    async with server._pool.get() as channel, channel.open(at, "rb", block_size=_BLOCK, max_requests=_BLOCKS) as file:
        data: bytes = await file.read(count, start)
    return data[:count]


_Errors: TypeAlias = tuple[type[Exception], ...]


def _errors_of(scheme: str) -> tuple[_Errors, _Errors, _Errors]:
    """Returns the errors of a protocol's libraries which mean: access is denied, nothing is there, no answer."""
    if scheme == "s3":
        import botocore.exceptions as s3
        from aiohttp import ClientPayloadError
        from botocore.parsers import ResponseParserError

        credentials = s3.NoCredentialsError, s3.PartialCredentialsError, s3.ProfileNotFound, s3.CredentialRetrievalError
        broken = s3.ConnectionError, s3.HTTPClientError, s3.IncompleteReadError, ClientPayloadError, ResponseParserError
        return credentials, (), broken
    if scheme == "sftp":
        import asyncssh as ssh

        denied = ssh.PermissionDenied, ssh.SFTPPermissionDenied, ssh.KeyImportError
        absent = ssh.SFTPNoSuchFile, ssh.SFTPNoSuchPath, ssh.SFTPNotADirectory
        return denied, absent, (ssh.DisconnectError, ssh.SFTPConnectionLost, ssh.SFTPNoConnection)
    import httpx

    return (netrc.NetrcParseError,), (), (httpx.TransportError,)


def _fault(error: Exception, scheme: str) -> OSError:
    """Makes an error with the meaning of a library's error and the remedy, without the library's message."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, files.Misled):
            return inner
        inner = inner.__cause__ or inner.__context__
    status = getattr(error, "status_code", None) or getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, ModuleNotFoundError):
        return OSError(errno.ENOSYS, f"{error.name} is not installed; {_INSTALL}")
    denied, absent, silent = _errors_of(scheme)

    def is_one(*kinds: type[Exception]) -> bool:
        return isinstance(error, kinds) or isinstance(error.__cause__, kinds)

    if scheme == "sftp" and is_one(importlib.import_module("asyncssh").HostKeyNotVerifiable):
        return PermissionError(errno.EACCES, "the server's key is unknown; connect once by ssh, and accept it")
    if is_one(PermissionError, *denied) or status in (401, 403):
        return PermissionError(errno.EACCES, "access is denied; check the credentials (docs/using.md says where)")
    if is_one(FileNotFoundError, NotADirectoryError, *absent) or status == 404:
        return FileNotFoundError(errno.ENOENT, "nothing is at its address")
    if status == 416:
        return files.FileChanging(errno.EAGAIN, "its size has changed")
    if getattr(error, "errno", None) == errno.EBUSY or status in (429, 503):
        return Unreachable(errno.EBUSY, "the server limits requests; try again later")
    if is_one(TimeoutError, ConnectionError, socket.gaierror, EOFError, *silent) or (status or 0) >= 500:
        return Unreachable(errno.EHOSTUNREACH, "the server does not answer; try again when it does")
    return OSError(errno.EIO, f"the server's answer cannot be understood ({type(error).__name__})")


#: A folder that a user names. What goes wrong when it is read raises OSError.
Folder: TypeAlias = LocalFolder | RemoteFolder
