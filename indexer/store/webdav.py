"""A WebDAV server: listings and parts of files, with limits on its answers."""

import errno
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Never
from urllib.parse import quote, unquote, urlsplit
from xml.etree import ElementTree

import httpx
from fsspec.asyn import get_loop, sync

from sketch_search.indexer.store.files import Misled

# The most bytes of a listing, and of one entry, which takes a kilobyte.
MAX_LISTING, MAX_ENTRY = 64 * 2**20, 2**20
# Bytes of a listing that are parsed at a time.
_PIECE = 2**16
_MAX_REDIRECTS = 5
_SIZE = re.compile(r"[0-9]{1,15}")


class WebDavServer:
    """A server at ``http://HOST:PORT``; paths begin without a slash, unquoted. Timeouts are in seconds."""

    def __init__(
        self, address: str, passwords: Path, *, connect_seconds: float, answer_seconds: float, at_once: int
    ) -> None:
        """passwords: a .netrc file, which need not exist. at_once: the most requests that are under way."""
        self._passwords = passwords
        self.http = httpx.AsyncClient(
            base_url=address,
            timeout=httpx.Timeout(answer_seconds, connect=connect_seconds),
            limits=httpx.Limits(max_connections=at_once),
            # A compressed answer may decompress to any size.
            headers={"Accept-Encoding": "identity"},
        )

    def info(self, path: str, timeout: float) -> dict[str, Any]:
        """Describes a file or folder as fsspec does: its name, type, size, etag, and when it was modified."""
        for entry in self._entries(path, 0, timeout):
            return entry
        raise FileNotFoundError(errno.ENOENT, "nothing is at its address", path)

    def ls(self, path: str, timeout: float) -> list[dict[str, Any]]:
        """Describes a folder and its contents, as listed by the server."""
        found = [*self._entries(path, 1, timeout)]
        if not any(entry["name"] == path and entry["type"] == "directory" for entry in found):
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", path)
        return found

    def part(self, path: str, start: int, count: int, timeout: float) -> bytes:
        """Reads at most ``count`` bytes of a file, from byte ``start`` on."""
        ranged = {"Range": f"bytes={start}-{start + count - 1}"} if start else {}
        return self._answer("GET", path, start, count, ranged, timeout)

    def _entries(self, path: str, depth: int, timeout: float) -> Iterator[dict[str, Any]]:
        data = self._answer("PROPFIND", path, 0, MAX_LISTING + 1, {"Depth": str(depth)}, timeout)
        if len(data) > MAX_LISTING:
            raise Misled(errno.EFBIG, f"its listing is larger than {MAX_LISTING >> 20} MiB", path)
        for response in _responses(data):
            with suppress(ValueError):  # the entry's address is none
                yield _describe(response)

    def _answer(self, method: str, path: str, start: int, count: int, headers: dict[str, str], timeout: float) -> bytes:
        """Returns at most ``count`` bytes of an answer. Follows redirects on the same server alone."""
        # All together have one clock: httpx begins anew with each byte, and waits for as many heads as there are.
        answer: bytes = sync(get_loop(), self._asked, method, path, start, count, headers, timeout=timeout)
        return answer

    async def _asked(self, method: str, path: str, start: int, count: int, headers: dict[str, str]) -> bytes:
        auth = httpx.NetRCAuth(str(self._passwords)) if self._passwords.is_file() else None
        url = self.http.base_url.join("/" + quote(path, errors="surrogateescape"))
        for _ in range(_MAX_REDIRECTS):
            async with self.http.stream(method, url, headers=headers, auth=auth) as answer:
                if answer.has_redirect_location:
                    there = answer.url.join(answer.headers["Location"])
                    if (there.scheme, there.host, there.port) != (url.scheme, url.host, url.port):
                        raise Misled(errno.EPERM, "the server redirects to another address; use that one", path)
                    url = there
                    continue
                answer.raise_for_status()
                if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
                    raise Misled(errno.EIO, "the server compresses its answers although asked not to")
                # A server that knows no ranges sends the file from its beginning.
                skipped = 0 if answer.status_code == httpx.codes.PARTIAL_CONTENT else start
                data = bytearray()
                async for chunk in answer.aiter_raw():
                    passed = chunk[skipped:]
                    skipped = max(0, skipped - len(chunk))
                    data += passed[: count - len(data)]
                    if len(data) >= count:
                        break
                return bytes(data)
        raise Misled(errno.ELOOP, "the server redirects endlessly", path)


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


def _responses(listing: bytes) -> Iterator[ElementTree.Element]:
    """Yields the entries of a listing, which would all together take 25 times its bytes. Raises ParseError, Misled."""
    entries = _Entries()
    parser, begun = ElementTree.XMLParser(target=entries), 0
    for start in range(0, len(listing), _PIECE):
        parser.feed(listing[start : start + _PIECE])
        if entries.whole:
            yield from (entry for entry in entries.whole if entry.tag == "{DAV:}response")
            entries.whole, begun = [], start
        elif start - begun > MAX_ENTRY:
            raise Misled(errno.EFBIG, f"an entry of its listing is larger than {MAX_ENTRY >> 20} MiB")
    parser.close()


class _Entries(ElementTree.TreeBuilder):
    """Builds a document, and lets go of what is directly in its root once it is complete; ``whole`` are those."""

    def __init__(self) -> None:
        super().__init__()
        self.whole: list[ElementTree.Element] = []
        self._open: list[ElementTree.Element] = []

    def start(self, tag: str, attributes: dict[str, str]) -> ElementTree.Element:
        self._open.append(super().start(tag, attributes))
        return self._open[-1]

    def end(self, tag: str) -> ElementTree.Element:
        self._open.pop()
        if len(self._open) == 1:
            self.whole += self._open[0]
            self._open[0].clear()
        return super().end(tag)

    def doctype(self, *_: str | None) -> Never:
        # It may define entities, of which a few bytes become gigabytes.
        raise Misled(errno.EIO, "its listing has a document type")


def _time(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
