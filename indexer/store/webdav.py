"""A WebDAV server: listings and parts of files, with limits on whatever it answers."""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, unquote, urlsplit
from xml.etree import ElementTree

import httpx

from indexer.store.files import Misled

# The most bytes of a listing, and of seconds that any answer may take. A listing takes a kilobyte an entry.
MAX_LISTING, MAX_SECONDS = 64 * 2**20, 600
_MAX_REDIRECTS = 5
_SIZE = re.compile(r"[0-9]{1,15}")


class WebDavServer:
    """A server at ``http://HOST:PORT``. Paths in it begin without a slash, and are not quoted.

    Methods raise OSError, the errors of httpx, and ``ElementTree.ParseError``.
    """

    def __init__(self, address: str, auth: httpx.Auth | None, timeout: httpx.Timeout, limits: httpx.Limits) -> None:
        # An answer that is packed may unpack to any size.
        headers = {"Accept-Encoding": "identity"}
        self.http = httpx.Client(base_url=address, auth=auth, timeout=timeout, limits=limits, headers=headers)

    def info(self, path: str) -> dict[str, Any]:
        """Describes a file or folder as fsspec does: its name, type, size, etag, and when it was modified."""
        for entry in self._entries(path, depth=0):
            return entry
        raise FileNotFoundError(errno.ENOENT, "there is nothing at its address", path)

    def ls(self, path: str) -> list[dict[str, Any]]:
        """Describes what is in a folder."""
        found = [*self._entries(path, depth=1)]
        if not any(entry["name"] == path and entry["type"] == "directory" for entry in found):
            raise NotADirectoryError(errno.ENOTDIR, "it is no folder", path)
        # A server may name anything. What is not in this folder is left out.
        start = f"{path}/" if path else ""
        names = ((entry, entry["name"].removeprefix(start)) for entry in found if entry["name"].startswith(start))
        return [entry for entry, name in names if name and name != path and "/" not in name]

    def part(self, path: str, start: int, count: int) -> bytes:
        """Reads at most ``count`` bytes of a file, from byte ``start`` on."""
        ranged = {"Range": f"bytes={start}-{start + count - 1}"} if start else {}
        return self._answer("GET", path, start, count, ranged)

    def _entries(self, path: str, depth: int) -> Iterator[dict[str, Any]]:
        data = self._answer("PROPFIND", path, 0, MAX_LISTING + 1, {"Depth": str(depth)})
        if len(data) > MAX_LISTING:
            raise Misled(errno.EFBIG, f"its listing is larger than {MAX_LISTING >> 20} MiB", path)
        for response in ElementTree.fromstring(data).iter("{DAV:}response"):
            href = urlsplit(response.findtext("{DAV:}href", "")).path
            folder = response.find(".//{DAV:}resourcetype/{DAV:}collection") is not None
            size = response.findtext(".//{DAV:}getcontentlength", "0" if folder else "").strip()
            yield {
                "name": unquote(href, errors="surrogateescape").strip("/"),
                # What has no size, or an impossible one, is no file that can be read.
                "type": "directory" if folder else "file" if _SIZE.fullmatch(size) else "other",
                "size": int(size) if _SIZE.fullmatch(size) else 0,
                "etag": response.findtext(".//{DAV:}getetag"),
                "modified": _time(response.findtext(".//{DAV:}getlastmodified", "")),
            }

    def _answer(self, method: str, path: str, start: int, count: int, headers: dict[str, str]) -> bytes:
        """Returns at most ``count`` bytes of an answer. Follows redirects on the same server alone."""
        url = self.http.base_url.join("/" + quote(path, errors="surrogateescape"))
        ends = time.monotonic() + MAX_SECONDS
        for _ in range(_MAX_REDIRECTS):
            with self.http.stream(method, url, headers=headers) as answer:
                if answer.has_redirect_location:
                    there = answer.url.join(answer.headers["Location"])
                    if (there.scheme, there.host, there.port) != (url.scheme, url.host, url.port):
                        raise Misled(errno.EPERM, "the server leads to another address; name that one", path)
                    url = there
                    continue
                answer.raise_for_status()
                if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
                    raise Misled(errno.EIO, "the server packs its answers, although they are asked for as they are")
                # A server that knows no ranges sends the file from its beginning.
                skipped = 0 if answer.status_code == httpx.codes.PARTIAL_CONTENT else start
                data = bytearray()
                for chunk in answer.iter_raw():
                    passed = chunk[skipped:]
                    skipped = max(0, skipped - len(chunk))
                    data += passed[: count - len(data)]
                    if len(data) >= count:
                        break
                    if time.monotonic() > ends:
                        raise TimeoutError(errno.ETIMEDOUT, "the answer takes too long")
                return bytes(data)
        raise Misled(errno.ELOOP, "the server leads from address to address", path)


def _time(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
