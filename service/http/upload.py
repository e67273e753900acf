"""Sketches as they come in, as the raw body or in a form; their bytes are counted while they arrive."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.errors import BadUpload, BrokenUpload, QueueFull, UploadTooLarge

# Boundaries and part headers around the file.
MULTIPART_OVERHEAD = 16 * 1024
_ALONE = "send one sketch, as the file field 'file' or as the raw request body; parameters go into the query."
# After which a refused client may try again: the uploads that take the room may end at any moment.
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

        It is empty where nothing was sent, and where the file is empty.

        Raises:
            UploadTooLarge: more bytes than the limit, whether the request says so or not.
            QueueFull: there is no room for what has come.
            BrokenUpload: it took too long, or is multipart that does not parse.
            BadUpload: multipart with anything but one file in a field named ``file``.
        """
        multipart = request.headers.get("content-type", "").lower().startswith("multipart/form-data")
        try:
            async with asyncio.timeout(self._patience):
                return await (self._file_of_form(request) if multipart else self._raw_body(request))
        except TimeoutError:
            raise BrokenUpload(f"The sketch was not here after {self._patience:g} s; send a smaller one.") from None

    async def _raw_body(self, request: Request) -> bytes:
        async with aclosing(self._arriving(request, self._limit)) as chunks:
            return b"".join([chunk async for chunk in chunks])

    async def _file_of_form(self, request: Request) -> bytes:
        async with aclosing(self._arriving(request, self._limit + MULTIPART_OVERHEAD)) as chunks:
            form = await _SketchForm(request.headers, chunks, max_files=2, max_fields=1).parse()
        try:
            image = await _only_file(form).read()
        finally:
            await form.close()
        if len(image) > self._limit:
            raise _too_large(self._limit)
        return image

    async def _arriving(self, request: Request, most: int) -> AsyncGenerator[bytes, None]:
        """The body's chunks, of at most ``most`` bytes in all; until the generator is closed they count as held."""
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > most:
            raise _too_large(self._limit)
        arrived = 0
        try:
            async for chunk in request.stream():
                if arrived + len(chunk) > most:
                    raise _too_large(self._limit)
                if self.held + len(chunk) > self._most_held:
                    raise QueueFull(RETRY_SECONDS)
                self.held += len(chunk)
                arrived += len(chunk)
                yield chunk
        finally:
            self.held -= arrived


class _SketchForm(MultiPartParser):
    """Starlette's parser, which also notices where a form is cut short. Files stay in memory: their bytes are limited.

    Two files and one field are let through, so that the answer can name the part that does not belong there.
    """

    spool_max_size = sys.maxsize
    _ended = False

    def on_end(self) -> None:
        """The last boundary has come."""
        self._ended = True

    async def parse(self) -> FormData:
        """The form. Raises BrokenUpload, or BadUpload where it has too many parts."""
        try:
            form = await super().parse()
        except MultiPartException as error:
            if error.message.startswith("Too many"):
                raise BadUpload(f"The form has parts that are not taken; {_ALONE}") from error
            raise BrokenUpload("The form does not parse.") from error
        if not self._ended:
            await form.close()
            raise BrokenUpload("The form is cut short.")
        return form


def _only_file(form: FormData) -> UploadFile:
    """The file of the field ``file``. Raises BadUpload where the form has anything else, or nothing."""
    files: list[UploadFile] = []
    for name, part in form.multi_items():
        if name != "file":
            raise BadUpload(f"The form has a part {name[:64]!r} that is not taken; {_ALONE}")
        if not isinstance(part, UploadFile):
            raise BadUpload(f"The form has no upload in its field 'file'; {_ALONE}")
        files.append(part)
    if not files:
        raise BadUpload(f"The form is empty; {_ALONE}")
    if len(files) > 1:
        raise BadUpload(f"The form has a second field 'file'; {_ALONE}")
    return files[0]


def _too_large(limit: int) -> UploadTooLarge:
    return UploadTooLarge(f"The sketch has more than {limit} bytes, which is the limit here; send a smaller one.")
