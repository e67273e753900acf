"""Reads sketches as they arrive, as the raw body or in a form, and counts their bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from fastapi import Request
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from service.errors import BadSearch, BrokenUpload, ClientGone, QueueFull, UploadTooLarge

# Boundaries and part headers around the file.
MULTIPART_OVERHEAD = 16 * 1024
# A longer one costs more to take apart than it should.
MAX_CONTENT_TYPE = 1024
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
    """Reads sketches while they arrive, any number at once, ``held`` bytes so far. It is used from one event loop.

    Clients are not counted: one that sends slowly holds no more than what it has sent. If there is no room for more
    bytes, the sketch of which nothing has come for longest gives way, so that a stalled client keeps nobody out.
    """

    def __init__(self, limit: int, room: int, patience: float) -> None:
        """limit: bytes of an image. room: sketches of that size that may arrive at once. patience: seconds for each."""
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
        BadSearch for a form with anything but one file in a field named ``file``.
        """
        is_form = request.headers.get("content-type", "")[:20].lower().startswith("multipart/form-data")
        upload = _Upload(asyncio.timeout(self._patience))
        try:
            async with upload.patience:
                if not is_form:
                    return b"".join([chunk async for chunk in self._chunks(request, upload, self._limit)])
                body = self._chunks(request, upload, self._limit + MULTIPART_OVERHEAD)
                image = await _file_of_form(request.headers, body)
                if len(image) > self._limit:
                    raise self._too_large()
                return image
        except ClientDisconnect:
            raise ClientGone("The upload broke off.") from None
        except TimeoutError:
            if upload.gave_way:
                raise QueueFull(RETRY_SECONDS) from None
            raise BrokenUpload(f"The sketch did not arrive within {self._patience:g} s; send a smaller one.") from None
        finally:
            self._arriving.pop(upload, None)
            self.held -= upload.held

    async def _chunks(self, request: Request, upload: _Upload, most: int) -> AsyncGenerator[bytes, None]:
        """Yields the body as it comes. Raises UploadTooLarge beyond ``most`` bytes."""
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > most:
            raise self._too_large()
        async for chunk in request.stream():
            if upload.held + len(chunk) > most:
                raise self._too_large()
            self._hold(upload, len(chunk))
            yield chunk

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


class _Form(MultiPartParser):
    """A form in memory, which knows if its end has come."""

    spool_max_size = 0
    has_ended = False

    def on_end(self) -> None:
        self.has_ended = True


async def _file_of_form(headers: Headers, body: AsyncGenerator[bytes, None]) -> bytes:
    """Returns the file of a form that should hold nothing else. Raises BrokenUpload and BadSearch."""
    if len(headers["content-type"]) > MAX_CONTENT_TYPE:
        raise BrokenUpload("The form has no valid boundary.")

    async def whole() -> AsyncGenerator[bytes, None]:
        async for chunk in body:
            yield chunk
        if not form.has_ended:
            raise BrokenUpload("The form is cut short.")

    form = _Form(headers, whole())
    try:
        given = await form.parse()
    except MultiPartException as error:
        raise BrokenUpload("The form does not parse.") from error
    try:
        file: UploadFile | None = None
        for name, part in given.multi_items():
            if name != "file":
                raise BadSearch(f"The form has an unknown part {name[:64]!r}; {_ALONE}")
            if isinstance(part, str):
                raise BadSearch(f"The form has no upload in its field 'file'; {_ALONE}")
            if file is not None:
                raise BadSearch(f"The form has a second field 'file'; {_ALONE}")
            file = part
        if file is None:
            raise BadSearch(f"The form is empty; {_ALONE}")
        return await file.read()
    finally:
        await given.close()
