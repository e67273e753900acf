"""A WebDAV server: listings and parts of files."""

import errno
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit
from xml.etree import ElementTree

import httpx

from sketch_search.indexer.store.files import Misled

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
            skipped = 0 if answer.status_code == httpx.codes.PARTIAL_CONTENT else start
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
        auth = httpx.NetRCAuth(str(self._passwords)) if self._passwords.is_file() else None
        url = self.http.base_url.join("/" + quote(path, errors="surrogateescape"))
        for _ in range(_MAX_REDIRECTS):
            with self.http.stream(method, url, headers=headers, auth=auth) as answer:
                if not answer.has_redirect_location:
                    answer.raise_for_status()
                    yield answer
                    return
                there = answer.url.join(answer.headers["Location"])
            if (there.scheme, there.host, there.port) != (url.scheme, url.host, url.port):
                raise Misled(errno.EPERM, "the server redirects to another address; use that one", path)
            url = there
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
    return {
        "name": unquote(href, errors="surrogateescape").strip("/"),
        # What has no size, or an impossible one, is no file that can be read.
        "type": "directory" if folder else "file" if _SIZE.fullmatch(size) else "other",
        "size": int(size) if _SIZE.fullmatch(size) else 0,
        "etag": response.findtext(".//{DAV:}getetag"),
        "modified": _time(response.findtext(".//{DAV:}getlastmodified", "")),
    }


def _time(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
