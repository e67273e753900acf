"""Sketches as they come in, as the raw body or in a form; their bytes are counted while they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser

from fastapi import Request

from service.errors import BadUpload, BrokenUpload, QueueFull, UploadTooLarge

# Boundaries and part headers around the file.
MULTIPART_OVERHEAD = 16 * 1024
# The most bytes of a content type, and of the headers of a part: their parser may look at each byte many times.
MOST_HEADER = 1024
# RFC 2046 allows 70; some clients take more.
MOST_BOUNDARY = 256
# The delimiters that are looked for: two files and what ends them, so that the answer can name what does not belong.
MOST_DELIMITERS = 3
_ALONE = "send one sketch, as the file field 'file' or as the raw request body; parameters go into the query."
# After which a client whose sketch gave way may try again.
RETRY_SECONDS = 1


@dataclass(eq=False)
class _Upload:
    """A sketch that arrives: when it is given up, how many bytes of it are here, and whether it gave way to another."""

    patience: asyncio.Timeout
    held: int = 0
    gave_way: bool = False


class Uploads:
    """Reads sketches while they arrive, any number at once.

    Clients are not counted: one that sends slowly holds no more than what it has sent. Where there is no room for more
    bytes, the sketch of which nothing has come for longest gives way. So who stops in the midst keeps nobody out.
    To be used from one event loop.

    Attributes:
        held: bytes of all sketches that are on their way, as far as they are here.
    """

    def __init__(self, limit: int, room: int, patience: float) -> None:
        """
        Args:
            limit: the most bytes an image may have; nothing is kept beyond it.
            room: how many sketches of that size may be held while they arrive.
            patience: seconds after which the whole of a sketch must be here.
        """
        self._limit = limit
        self._most_held = room * (limit + MULTIPART_OVERHEAD)
        self._patience = patience
        # The one of which nothing has come for longest is the first.
        self._arriving: dict[_Upload, None] = {}
        self.held = 0

    async def read(self, request: Request) -> bytes:
        """Reads the image of a request: the raw body, whatever its content type says, or the form's field ``file``.

        It is empty where nothing was sent, and where the file is empty.

        Raises:
            UploadTooLarge: more bytes than the limit, whether the request says so or not.
            QueueFull: it gave way to others.
            BrokenUpload: it took too long, or is multipart that does not parse.
            BadUpload: multipart with anything but one file in a field named ``file``.
        """
        kind = request.headers.get("content-type", "")
        upload = _Upload(asyncio.timeout(self._patience))
        try:
            async with upload.patience:
                if kind[:20].lower().startswith("multipart/form-data"):
                    return await self._file_of_form(request, upload, Form(kind))
                chunks: list[bytes] = []
                await self._receive(request, upload, self._limit, chunks.append)
                return b"".join(chunks)
        except TimeoutError:
            if upload.gave_way:
                raise QueueFull(RETRY_SECONDS) from None
            raise BrokenUpload(f"The sketch was not here after {self._patience:g} s; send a smaller one.") from None
        finally:
            self._arriving.pop(upload, None)
            self.held -= upload.held

    async def _file_of_form(self, request: Request, upload: _Upload, form: Form) -> bytes:
        await self._receive(request, upload, self._limit + MULTIPART_OVERHEAD, form.add)
        image = form.file()
        if len(image) > self._limit:
            raise self._too_large()
        return image

    async def _receive(self, request: Request, upload: _Upload, most: int, add: Callable[[bytes], None]) -> None:
        """Hand the chunks of the body, of at most ``most`` bytes in all, to ``add`` as they come."""
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > most:
            raise self._too_large()
        async for chunk in request.stream():
            if upload.held + len(chunk) > most:
                raise self._too_large()
            self._hold(upload, len(chunk))
            add(chunk)

    def _hold(self, upload: _Upload, size: int) -> None:
        self._arriving.pop(upload, None)
        self._arriving[upload] = None
        while self.held + size > self._most_held:
            stalled = next(iter(self._arriving))
            del self._arriving[stalled]
            self.held -= stalled.held
            stalled.held, stalled.gave_way = 0, True
            if not stalled.patience.expired():
                stalled.patience.reschedule(asyncio.get_running_loop().time())
        upload.held += size
        self.held += size

    def _too_large(self) -> UploadTooLarge:
        return UploadTooLarge(
            f"The sketch has more than {self._limit} bytes, which is the limit here; send a smaller one."
        )


class Form:
    """A multipart form that should hold one file, in the field ``file``.

    Its bytes are searched for the boundary as they arrive, each only once; nothing else of them is looked at but the
    few lines before the file.
    """

    def __init__(self, content_type: str) -> None:
        """Raises BrokenUpload where this content type, of a form, names no boundary."""
        boundary = _parameters(f"Content-Type: {content_type}").get_param("boundary")
        if not isinstance(boundary, str) or not 0 < len(boundary) <= MOST_BOUNDARY:
            raise BrokenUpload("The form has no boundary that could be its parts'.")
        self._delimiter = b"\r\n--" + boundary.encode("latin-1", "replace")
        # The parser expects the end of a line before each delimiter, so the first one gets one, too.
        self._bytes = bytearray(b"\r\n")
        self._found: list[int] = []
        self._searched = 0

    def add(self, piece: bytes) -> None:
        """Take a piece of the body. Raises BadUpload where the form has too many parts."""
        self._bytes += piece
        while (place := self._bytes.find(self._delimiter, self._searched)) >= 0:
            if len(self._found) == MOST_DELIMITERS:
                raise BadUpload(f"The form has parts that are not taken; {_ALONE}")
            self._found.append(place)
            self._searched = place + len(self._delimiter)
        # The next piece may bring the rest of a delimiter.
        self._searched = max(self._searched, len(self._bytes) - len(self._delimiter) + 1)

    def file(self) -> bytes:
        """Returns the file, once all of the body is here.

        Raises:
            BrokenUpload: the form is cut short, or does not parse.
            BadUpload: it has anything else than that file, or nothing.
        """
        after = [bytes(self._bytes[place + len(self._delimiter) :][:2]) for place in self._found]
        if not after or self._found[0] != 0 or b"--" not in after:
            raise BrokenUpload("The form is cut short, or does not begin with its boundary.")
        parts = after.index(b"--")
        if any(mark != b"\r\n" for mark in after[:parts]):
            raise BrokenUpload("The form does not parse.")
        if not parts:
            raise BadUpload(f"The form is empty; {_ALONE}")
        files = [self._part(number) for number in range(parts)]
        if len(files) > 1:
            raise BadUpload(f"The form has a second field 'file'; {_ALONE}")
        return files[0]

    def _part(self, number: int) -> bytes:
        """Returns the content of a part. Raises BrokenUpload; BadUpload if it is no file in the field ``file``."""
        start = self._found[number] + len(self._delimiter) + 2
        blank = self._bytes.find(b"\r\n\r\n", start - 2, start + MOST_HEADER)
        if not 0 <= blank <= self._found[number + 1]:
            raise BrokenUpload("The form does not parse.")
        head = _parameters(self._bytes[start:blank].decode("latin-1"))
        name = head.get_param("name", header="content-disposition")
        if name != "file":
            told = name.encode("latin-1", "replace").decode(errors="replace") if isinstance(name, str) else ""
            raise BadUpload(f"The form has a part {told[:64]!r} that is not taken; {_ALONE}")
        if head.get_param("filename", header="content-disposition") is None:
            raise BadUpload(f"The form has no upload in its field 'file'; {_ALONE}")
        return bytes(self._bytes[blank + 4 : self._found[number + 1]])


def _parameters(head: str) -> Message:
    """Returns some header lines, taken apart. Raises BrokenUpload where they are too long to be what they should be."""
    if len(head) > MOST_HEADER:
        raise BrokenUpload("The form has a header that is too long.")
    return HeaderParser().parsestr(head)
