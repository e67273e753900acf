"""Reads sketches as they arrive, as the raw body or in a form, and counts their bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.errors import BadUpload, BrokenUpload, QueueFull, UploadTooLarge

# Boundaries and part headers around the file.
MULTIPART_OVERHEAD = 16 * 1024
# The most bytes of a content type, and of each header of a part.
MAX_HEADER = 1024
# RFC 2046 allows 70; some clients take more.
MAX_BOUNDARY = 256
_ALONE = "send one sketch, as the file field 'file' or as the raw request body; parameters go into the query."
# Seconds after which a client whose sketch gave way may try again.
RETRY_SECONDS = 1


@dataclass(eq=False)
class _Upload:
    """A sketch that arrives: when it is given up, its bytes so far, and whether it gave way to another."""

    patience: asyncio.Timeout
    held: int = 0
    gave_way: bool = False


class Uploads:
    """Reads sketches while they arrive, any number at once. It is used from one event loop.

    Clients are not counted: one that sends slowly holds no more than what it has sent. If there is no room for more
    bytes, the sketch of which nothing has come for longest gives way, so that a stalled client keeps nobody out.

    Attributes:
        held: bytes so far of all sketches that are on their way.
    """

    def __init__(self, limit: int, room: int, patience: float) -> None:
        """
        Args:
            limit: the most bytes of an image.
            room: how many sketches of that size may be held while they arrive.
            patience: seconds in which a whole sketch must arrive.
        """
        self._limit = limit
        self._most_held = room * (limit + MULTIPART_OVERHEAD)
        self._patience = patience
        # The one of which nothing has come for longest is the first.
        self._arriving: dict[_Upload, None] = {}
        self.held = 0

    async def read(self, request: Request) -> bytes:
        """Reads the image of a request: the raw body, whatever its content type, or the form's field ``file``.

        It is empty if nothing was sent.

        Raises UploadTooLarge; QueueFull if it gave way to others; BrokenUpload if it took too long or does not parse;
        BadUpload for a form with anything but one file in a field named ``file``.
        """
        content_type = request.headers.get("content-type", "")
        upload = _Upload(asyncio.timeout(self._patience))
        try:
            async with upload.patience:
                if content_type[:20].lower().startswith("multipart/form-data"):
                    return await self._file_of_form(request, upload, Form(content_type))
                chunks: list[bytes] = []
                await self._receive(request, upload, self._limit, chunks.append)
                return b"".join(chunks)
        except TimeoutError:
            if upload.gave_way:
                raise QueueFull(RETRY_SECONDS) from None
            raise BrokenUpload(f"The sketch did not arrive within {self._patience:g} s; send a smaller one.") from None
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
        """Hands the chunks of the body, at most ``most`` bytes in all, to ``add`` as they come."""
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
    """A multipart form that should hold one file, in the field ``file``, and is parsed while it arrives."""

    def __init__(self, content_type: str) -> None:
        """Raises BrokenUpload without a boundary."""
        boundary = _parameters(content_type).get(b"boundary", b"")
        if not 0 < len(boundary) <= MAX_BOUNDARY:
            raise BrokenUpload("The form has no valid boundary.")
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._check,
                "on_part_data": lambda data, start, end: self._file.extend(memoryview(data)[start:end]),
                "on_end": self._end,
            },
            max_header_size=MAX_HEADER,
        )
        self._name, self._value, self._file = bytearray(), bytearray(), bytearray()
        self._parts, self._ended = 0, False
        self._disposition = ""
        self._problem: BadUpload | BrokenUpload | None = None

    def add(self, piece: bytes) -> None:
        if self._problem is None:
            try:
                self._parser.write(piece)
            except FormParserError:
                self._problem = BrokenUpload("The form does not parse.")
            except (BadUpload, BrokenUpload) as problem:
                self._problem = problem

    def file(self) -> bytes:
        """Returns the file of the whole body. Raises BrokenUpload if it does not parse, BadUpload without one file."""
        if self._problem is not None:
            raise self._problem
        if not self._ended:
            raise BrokenUpload("The form is cut short.")
        if not self._parts:
            raise BadUpload(f"The form is empty; {_ALONE}")
        return bytes(self._file)

    def _begin(self) -> None:
        self._parts += 1
        self._disposition = ""

    def _end_header(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value.decode("latin-1")
        self._name.clear()
        self._value.clear()

    def _check(self) -> None:
        """Raises BadUpload if the part that begins is not the file."""
        given = _parameters(self._disposition)
        name = given.get(b"name", b"")
        if name != b"file":
            raise BadUpload(f"The form has an unknown part {name.decode(errors='replace')[:64]!r}; {_ALONE}")
        if b"filename" not in given:
            raise BadUpload(f"The form has no upload in its field 'file'; {_ALONE}")
        if self._parts > 1:
            raise BadUpload(f"The form has a second field 'file'; {_ALONE}")

    def _end(self) -> None:
        self._ended = True


def _parameters(header: str) -> dict[bytes, bytes]:
    """Returns the parameters of a header. Raises BrokenUpload if it is too long to be what it should be."""
    if len(header) > MAX_HEADER:
        raise BrokenUpload("The form has a header that is too long.")
    return parse_options_header(header)[1]
