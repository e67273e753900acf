"""Reads sketches from raw bodies or forms as they arrive, and counts their bytes."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from fastapi import Request
from python_multipart.multipart import MAX_BOUNDARY_LENGTH, parse_options_header
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from sketch_search.model.images import MAX_THINGS
from sketch_search.service.errors import BadSearch, BrokenUpload, ClientGone, QueueFull, UploadTooLarge

# Boundaries and part headers around the file.
MULTIPART_OVERHEAD = 16 * 1024
# A longer one costs too much to parse.
MAX_CONTENT_TYPE = 1024
_ADVICE = (
    "send a sketch as the raw request body or as the file field 'file', or the things of one drawing as several fields "
    "'file'; its strokes as the field 'strokes'; put parameters into the query."
)
# Seconds after which a client whose sketch was dropped may try again.
RETRY_SECONDS = 1


@dataclass(frozen=True)
class Sent:
    """What a request sent: image files, and the strokes of a drawing as JSON."""

    pictures: tuple[bytes, ...]
    strokes: bytes = b""


@dataclass(eq=False)
class _Upload:
    """An arriving sketch: its timeout, its bytes so far, and whether it was dropped to make room for another."""

    timeout: asyncio.Timeout
    held: int = 0
    dropped: bool = False


class Uploads:
    """Reads sketches while they arrive, any number at once, ``held`` bytes so far. It is used from one event loop.

    Clients are not counted: a slow one holds no more memory than what it has sent. If there is no room for more bytes,
    the sketch that has been stalled for longest is dropped, so that a stalled client blocks nobody.
    """

    def __init__(self, limit: int, room: int, patience: float) -> None:
        """limit: bytes of an image. room: sketches of that size that may arrive at once. patience: seconds for each."""
        self._limit = limit
        self._most_held = room * (limit + MULTIPART_OVERHEAD)
        self._patience = patience
        # The one stalled for longest is first.
        self._arriving: dict[_Upload, None] = {}
        self.held = 0

    async def read(self, request: Request) -> Sent:
        """Reads the images of a request: the raw body, whatever its content type, or the form's fields ``file``.

        There are none if nothing was sent. The limit of bytes applies to all of them together, and to the strokes.

        Raises UploadTooLarge; QueueFull if it was dropped for others; BrokenUpload if it took too long or is malformed;
        BadSearch for a form with anything but 1 to MAX_THINGS files in fields named ``file``, and strokes.
        """
        content_type = request.headers.get("content-type", "")
        is_form = content_type[:20].lower().startswith("multipart/form-data")
        upload = _Upload(asyncio.timeout(self._patience))
        try:
            async with upload.timeout:
                if not is_form:
                    image = b"".join([chunk async for chunk in self._chunks(request, upload, self._limit)])
                    return Sent((image,) if image else ())
                most = self._limit + MULTIPART_OVERHEAD
                images, strokes = await _read_form(content_type, self._chunks(request, upload, most), most)
                if sum(map(len, [*images, strokes])) > self._limit:
                    raise self._too_large()
                # A form with one empty file sends nothing, as an empty body does.
                return Sent(() if images == (b"",) else images, strokes)
        except ClientDisconnect:
            raise ClientGone("The upload was interrupted.") from None
        except TimeoutError:
            if upload.dropped:
                raise QueueFull(RETRY_SECONDS) from None
            raise BrokenUpload(f"The sketch did not arrive within {self._patience:g} s; send a smaller one.") from None
        finally:
            self._arriving.pop(upload, None)
            self.held -= upload.held

    async def _chunks(self, request: Request, upload: _Upload, most: int) -> AsyncGenerator[bytes, None]:
        """Yields the body as it arrives. Raises UploadTooLarge beyond ``most`` bytes."""
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
            stalled.held, stalled.dropped = 0, True
            if not stalled.timeout.expired():
                stalled.timeout.reschedule(asyncio.get_running_loop().time())
        upload.held += size
        self.held += size

    def _too_large(self) -> UploadTooLarge:
        return UploadTooLarge(f"The sketch is larger than the limit of {self._limit} bytes; send a smaller one.")


class _Form(MultiPartParser):
    """Reads files and strokes into memory. A form is refused at the header of the first part that is neither."""

    spool_max_size = 0
    has_ended = False

    def on_headers_finished(self) -> None:
        # Clients send the name of a file as filename*, empty, or not at all; Starlette tells files by "filename".
        if parse_options_header(self._current_part.content_disposition)[1].get(b"name") == b"file":
            self._current_part.content_disposition = b'form-data; name="file"; filename="sketch"'
        super().on_headers_finished()
        if (name := self._current_part.field_name) not in ("file", "strokes"):
            raise BadSearch(f"The form has an unknown part {name[:64]!r}; {_ADVICE}")
        if self._current_files > MAX_THINGS:
            raise BadSearch(f"The form has more than {MAX_THINGS} fields 'file', the most things of a drawing.")

    def on_end(self) -> None:
        self.has_ended = True


async def _read_form(
    content_type: str, body: AsyncGenerator[bytes, None], most: int
) -> tuple[tuple[bytes, ...], bytes]:
    """Returns the files and the strokes of a form of at most ``most`` bytes. Raises BrokenUpload, BadSearch.

    Only the boundary of its content type is used. Starlette would decode each field by the client's charset; some take
    seconds, and Python caches each unknown one.
    """
    boundary = b""
    if len(content_type) <= MAX_CONTENT_TYPE:
        boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not 0 < len(boundary) <= MAX_BOUNDARY_LENGTH:
        raise BrokenUpload("The form has no valid boundary.")
    headers = Headers({"content-type": f'multipart/form-data; boundary="{boundary.decode("latin-1")}"'})
    parser = _Form(headers, body, max_part_size=most)
    try:
        parts = [
            (name, part.encode() if isinstance(part, str) else await part.read())
            for name, part in (await parser.parse()).multi_items()
        ]
    except MultiPartException as error:
        raise BrokenUpload("The form cannot be parsed.") from error
    finally:
        for file in parser._files_to_close_on_error:
            file.close()
    if not parser.has_ended:
        raise BrokenUpload("The form is cut short.")
    images = tuple(data for name, data in parts if name == "file")
    if not images:
        raise BadSearch(f"The form is empty; {_ADVICE}")
    return images, b"".join(data for name, data in parts if name == "strokes")
