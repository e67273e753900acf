"""Request bodies as the sketches' bytes, counted as they arrive."""

from __future__ import annotations

import asyncio

import anyio.to_thread
from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser, parse_options_header

from service.errors import BadUpload, BrokenUpload, QueueFull, UploadTooLarge

# Boundaries and part headers around the file.
MULTIPART_OVERHEAD = 16 * 1024
_ALONE = "send one sketch, as the file field 'file' or as the raw request body; parameters go into the query."
# What keeps others out may be over at any moment.
RETRY_SECONDS = 1


class Uploads:
    """Reads sketches while they arrive, any number at once, as long as there is room for their bytes.

    Clients are not counted: one that sends slowly holds no more than what it has sent, and keeps nobody out.
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
        self.held = 0

    async def read(self, request: Request) -> bytes:
        """The image in the request: the raw body, whatever its content type says, or the multipart field ``file``.

        Raises:
            UploadTooLarge: more bytes than the limit, whether the request says so or not.
            QueueFull: there is no room for what has come.
            BrokenUpload: it took too long, or is multipart that does not parse.
            BadUpload: multipart with anything but one file in a field named ``file``.
        """
        content_type = request.headers.get("content-type", "")
        multipart = content_type.lower().startswith("multipart/form-data")
        try:
            async with asyncio.timeout(self._patience):
                body = await self._body(request, self._limit + MULTIPART_OVERHEAD if multipart else self._limit)
        except TimeoutError:
            raise BrokenUpload(f"The sketch was not here after {self._patience:g} s; send a smaller one.") from None
        if not multipart:
            return body
        return await anyio.to_thread.run_sync(_file_field, content_type, body, self._limit)

    async def _body(self, request: Request, most: int) -> bytes:
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > most:
            raise _too_large(self._limit)
        body = bytearray()
        try:
            async for chunk in request.stream():
                if len(body) + len(chunk) > most:
                    raise _too_large(self._limit)
                if self.held + len(chunk) > self._most_held:
                    raise QueueFull(RETRY_SECONDS)
                self.held += len(chunk)
                body += chunk
            return bytes(body)
        finally:
            self.held -= len(body)


def _file_field(content_type: str, body: bytes, limit: int) -> bytes:
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise BrokenUpload("The content type of the form names no boundary.")
    files: list[File] = []
    ends: list[bool] = []

    def keep(part: Field | File) -> None:
        # At once, since each part costs the parser far more than its bytes.
        if not isinstance(part, File) or part.field_name != b"file" or files:
            if part.field_name == b"file":
                raise BadUpload(f"The form has {'a second' if files else 'no upload in its'} field 'file'; {_ALONE}")
            name = (part.field_name or b"").decode(errors="replace")[:64]
            raise BadUpload(f"The form has a part {name!r} that is not taken; {_ALONE}")
        files.append(part)

    try:
        parser = FormParser(
            "multipart/form-data",
            on_field=keep,
            on_file=keep,
            on_end=lambda: ends.append(True),
            boundary=boundary,
            config={"MAX_MEMORY_FILE_SIZE": float("inf")},  # the body is in memory already, and bounded
        )
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise BrokenUpload("The form does not parse.") from error
    if not ends:
        raise BrokenUpload("The form is cut short.")
    if not files:
        raise BadUpload(f"The form is empty; {_ALONE}")
    with files[0].file_object as stream:
        stream.seek(0)
        image = stream.read()
    if len(image) > limit:
        raise _too_large(limit)
    return image


def _too_large(limit: int) -> UploadTooLarge:
    return UploadTooLarge(f"The sketch has more than {limit} bytes, which is the limit here; send a smaller one.")
