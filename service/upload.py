"""A request body as the sketch's bytes, counted as they arrive."""

from __future__ import annotations

import asyncio

import anyio.to_thread
from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser, parse_options_header

from service.errors import BadUpload, BrokenUpload, UploadTooLarge

# Boundaries and part headers around the file.
MULTIPART_OVERHEAD = 16 * 1024
# Each part costs the parser far more than its bytes; a form with a sketch has one, or a few.
MAX_PARTS = 16


async def read_sketch(request: Request, limit: int, patience: float) -> bytes:
    """The image in the request: the raw body, whatever its content type says, or the multipart field ``file``.

    Args:
        limit: the most bytes an image may have; nothing is kept beyond it.
        patience: seconds after which the whole of it must be here; a client holds a place in the queue while it sends.

    Raises:
        UploadTooLarge: more bytes than ``limit``, whether the request says so or not.
        BrokenUpload: it took too long, or is multipart that does not parse or has more than MAX_PARTS parts.
        BadUpload: multipart without one file in a field named ``file``.
    """
    content_type = request.headers.get("content-type", "")
    multipart = content_type.lower().startswith("multipart/form-data")
    try:
        async with asyncio.timeout(patience):
            body = await _read_body(request, limit, limit + MULTIPART_OVERHEAD if multipart else limit)
    except TimeoutError:
        raise BrokenUpload(f"The sketch was not here after {patience:g} s; send a smaller one.") from None
    if not multipart:
        return body
    return await anyio.to_thread.run_sync(_file_field, content_type, body, limit)


async def _read_body(request: Request, limit: int, most: int) -> bytes:
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > most:
        raise _too_large(limit)
    body = bytearray()
    async for chunk in request.stream():
        if len(body) + len(chunk) > most:
            raise _too_large(limit)
        body += chunk
    return bytes(body)


def _file_field(content_type: str, body: bytes, limit: int) -> bytes:
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise BrokenUpload("The content type of the form names no boundary.")
    parts: list[Field | File] = []
    ends: list[bool] = []

    def keep(part: Field | File) -> None:
        if len(parts) == MAX_PARTS:
            raise BrokenUpload(f"The form has more than {MAX_PARTS} parts; send the sketch alone.")
        parts.append(part)

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
    files = [part for part in parts if isinstance(part, File) and part.field_name == b"file"]
    if len(files) != 1:
        raise BadUpload("Send one sketch, as the file field 'file' or as the raw request body.")
    with files[0].file_object as stream:
        stream.seek(0)
        image = stream.read()
    if len(image) > limit:
        raise _too_large(limit)
    return image


def _too_large(limit: int) -> UploadTooLarge:
    return UploadTooLarge(f"The sketch has more than {limit} bytes, which is the limit here; send a smaller one.")
