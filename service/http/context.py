"""Holds what all routes share, checks who sends a request, and reads uploads, of a sketch as body or in a form."""

import asyncio
import re
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Annotated, TypeVar, cast

from anyio import CancelScope, CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import Depends, Header, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MAX_BOUNDARY_LENGTH, MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from sketch_search.model.images import MAX_THINGS
from sketch_search.service import errors
from sketch_search.service.engine import SearchEngine
from sketch_search.service.http.middleware import cookie_name, network
from sketch_search.service.serving import Builder, Live, Metrics, Worker
from sketch_search.service.serving.worker import (
    EXPLANATIONS,
    LOOKUPS,
    ORIGINALS,
    OWNER,
    RETRY_SECONDS,
    THUMBNAILS,
    UPKEEP,
    Turns,
    cancelled_by,
)
from sketch_search.service.settings import Settings

# Boundaries and part headers around the file.
MULTIPART_OVERHEAD = 16 * 1024
# The most seconds that a request waits for a server that has just started to open its index.
_PATIENCE = 5
# A longer one costs too much to parse.
MAX_CONTENT_TYPE = 1024
_ADVICE = (
    "send a sketch as the raw request body or as the file field 'file', or the things of one drawing as several fields "
    "'file'; its strokes as the field 'strokes'; put parameters into the query."
)
# Without the colon, as the parser passes a header on. Clients send the name of a file as filename*, empty, or not.
_DISPOSITION = re.compile(rb"^content-disposition(.*)", re.I | re.M)


@dataclass(frozen=True)
class Sent:
    """Holds what a request sent: image files, and the strokes of a drawing as JSON."""

    pictures: tuple[bytes, ...]
    strokes: bytes = b""


@dataclass(eq=False)
class _Upload:
    """An arriving sketch: its timeout, its client, its bytes so far, and whether it was dropped for another."""

    timeout: asyncio.Timeout
    client: str
    held: int = 0
    dropped: bool = False


class Uploads:
    """Reads sketches while they arrive, any number at once, ``held`` bytes so far. It is used from one event loop.

    A slow client holds no more memory than what it has sent. If there is no room for more bytes, that sketch of the
    client with most of them is dropped that has been stalled for longest.
    """

    def __init__(self, limit: int, room: int, patience: float) -> None:
        """limit: bytes of an image. room: sketches of that size that may arrive at once. patience: seconds for each."""
        self._limit = limit
        self._most_held = room * (limit + MULTIPART_OVERHEAD)
        self._patience = patience
        # The one stalled for longest is first.
        self._arriving: dict[_Upload, None] = {}
        self._held_by = Counter[str]()
        self.held = 0

    async def read(self, request: Request, client: str) -> Sent:
        """Reads the images of a request: the raw body, whatever its content type, or the form's fields ``file``.

        There are none if nothing was sent. The limit of bytes applies to all of them together, and to the strokes.

        Raises UploadTooLarge; QueueFull if it was dropped for others; BrokenUpload if it took too long or is malformed;
        BadSearch for a form with anything but 1 to MAX_THINGS files in fields named ``file``, and strokes.
        """
        content_type = request.headers.get("content-type", "")
        is_form = content_type[:20].lower().startswith("multipart/form-data")
        upload = _Upload(asyncio.timeout(self._patience), client)
        try:
            async with upload.timeout:
                if not is_form:
                    image = b"".join([chunk async for chunk in self._chunks(request, upload, self._limit)])
                    return Sent((image,) if image else ())
                most = self._limit + MULTIPART_OVERHEAD
                sent = await _read_form(content_type, self._chunks(request, upload, most))
                if sum(map(len, [*sent.pictures, sent.strokes])) > self._limit:
                    raise self._too_large()
                # A form with one empty file sends nothing, as an empty body does.
                return Sent((), sent.strokes) if sent.pictures == (b"",) else sent
        except ClientDisconnect:
            raise errors.ClientGone("The upload was interrupted.") from None
        except TimeoutError:
            if upload.dropped:
                raise errors.QueueFull(RETRY_SECONDS) from None
            raise errors.BrokenUpload(
                f"The sketch did not arrive within {self._patience:g} s; send a smaller one."
            ) from None
        finally:
            self._release(upload)

    async def _chunks(self, request: Request, upload: _Upload, most: int) -> AsyncIterator[bytes]:
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
            most = max(self._held_by, key=lambda client: self._held_by[client])
            stalled = next(one for one in self._arriving if one.client == most and one.held)
            self._release(stalled)
            stalled.dropped = True
            if not stalled.timeout.expired():
                stalled.timeout.reschedule(asyncio.get_running_loop().time())
        upload.held += size
        self._held_by[upload.client] += size
        self.held += size

    def _release(self, upload: _Upload) -> None:
        self._arriving.pop(upload, None)
        self._held_by -= Counter({upload.client: upload.held})
        self.held -= upload.held
        upload.held = 0

    def _too_large(self) -> errors.UploadTooLarge:
        return errors.UploadTooLarge(f"The sketch is larger than the limit of {self._limit} bytes; send a smaller one.")


async def _read_form(content_type: str, body: AsyncIterator[bytes]) -> Sent:
    """Reads a form into memory, up to the header of a part that is unknown. Raises BrokenUpload, BadSearch."""
    boundary = b""
    if len(content_type) <= MAX_CONTENT_TYPE:
        boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not 0 < len(boundary) <= MAX_BOUNDARY_LENGTH:
        raise errors.BrokenUpload("The form has no valid boundary.")
    head, images, strokes, ended = bytearray(), list[bytearray](), bytearray(), asyncio.Event()
    parts = [strokes]

    def note(data: bytes, start: int, end: int) -> None:
        head.extend(data[start:end])

    def begin() -> None:
        disposition = _DISPOSITION.search(head)
        name = parse_options_header(bytes(disposition[1]) if disposition else b"")[1].get(b"name", b"")
        head.clear()
        if not name:
            raise FormParserError
        if name not in (b"file", b"strokes"):
            raise errors.BadSearch(f"The form has an unknown part {name[:64].decode(errors='replace')!r}; {_ADVICE}")
        if name == b"file":
            images.append(bytearray())
        if len(images) > MAX_THINGS or len(parts) > 2 * MAX_THINGS:
            raise errors.BadSearch(f"The form has more than {MAX_THINGS} fields 'file', the most things of a drawing.")
        parts.append(images[-1] if name == b"file" else strokes)

    form = MultipartParser(
        boundary,
        {
            "on_header_field": note,
            "on_header_value": note,
            "on_header_end": lambda: head.extend(b"\n"),
            "on_headers_finished": begin,
            "on_part_data": lambda data, start, end: parts[-1].extend(data[start:end]),
            "on_end": ended.set,
        },
    )
    try:
        async for chunk in body:
            form.write(chunk)
    except FormParserError as error:
        raise errors.BrokenUpload("The form cannot be parsed.") from error
    if not ended.is_set():
        raise errors.BrokenUpload("The form is cut short.")
    if not images:
        raise errors.BadSearch(f"The form is empty; {_ADVICE}")
    return Sent(tuple(map(bytes, images)), bytes(strokes))


T = TypeVar("T")

TOKEN_HEADER = "X-SBIR-Token"
# The end of a sentence.
WITHOUT_TOKEN = (
    "you need the server's token: open the address that the server printed when it started, which includes it, or send "
    f"it as the header {TOKEN_HEADER}. It is also in server.json, in the folder of the index."
)


@dataclass
class Context:
    """Holds the objects that all handlers of one application share, and the request of one.

    lookups, thumbnails, originals, explanations, upkeep: the turns of each ``Lane``. folder_checks: limits
    the threads that look whether folders are there.
    """

    settings: Settings
    version: str
    live: Live
    worker: Worker
    uploads: Uploads
    metrics: Metrics
    builder: Builder
    token: str
    lookups: Turns = field(default_factory=partial(Turns, *LOOKUPS))
    thumbnails: Turns = field(default_factory=partial(Turns, *THUMBNAILS))
    originals: Turns = field(default_factory=partial(Turns, *ORIGINALS))
    explanations: Turns = field(default_factory=partial(Turns, *EXPLANATIONS))
    upkeep: Turns = field(default_factory=partial(Turns, *UPKEEP))
    folder_checks: CapacityLimiter = field(default_factory=partial(CapacityLimiter, 1))
    request: Request = field(init=False)

    @cached_property
    def trusted(self) -> bool:
        """Whether the client has the token, which only the person who started the server can have read."""
        sent = self.request.headers.get(TOKEN_HEADER) or self.request.cookies.get(cookie_name(self.request.scope), "")
        return secrets.compare_digest(sent.encode("latin-1", "replace"), self.token.encode())

    @property
    def client(self) -> str:
        """Who takes turns with others: the owner, or an address."""
        return OWNER if self.trusted else network(self.request.client.host if self.request.client else "")

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[CancelScope]:
        """Cancels the block, whose scope it gives, if the client disconnects, and raises ClientGone.

        The request's body has been read, or it has none.
        """

        async def listen() -> None:
            while (await self.request.receive())["type"] != "http.disconnect":
                pass

        async with cancelled_by(listen()) as scope:
            yield scope

    async def in_turn(self, turns: Turns, job: Callable[[], T]) -> T:
        """Returns the result of a job that a thread runs in the client's turn. Raises ClientGone, QueueFull."""
        async with self.connected(), turns.turn(self.client):
            return await run_sync(job)


async def context(request: Request) -> Context:
    of_request = copy(cast(Context, request.app.state.context))
    of_request.request = request
    return of_request


Ctx = Annotated[Context, Depends(context)]
_header = APIKeyHeader(
    name="X-API-Key", auto_error=False, description="Required if the server has SKETCH_SEARCH_API_KEY set."
)
_bearer = HTTPBearer(auto_error=False, description="The same key as a bearer token.")


async def require_key(
    ctx: Ctx,
    header: Annotated[str | None, Depends(_header)],
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> None:
    """Raises Unauthorized unless the request carries the API key, if there is one."""
    if ctx.settings.api_key is None:
        return
    key = header or (bearer.credentials if bearer else "")
    # HTTP headers are bytes that the server has read as Latin-1.
    if not secrets.compare_digest(key.encode("latin-1"), ctx.settings.api_key.get_secret_value().encode()):
        raise errors.Unauthorized("This server requires its API key, as the header X-API-Key or as a bearer token.")


async def refuse_doubles(request: Request) -> None:
    """Raises BadSearch if a query parameter that is not a list is given twice."""
    counts = Counter(name for name, _ in request.query_params.multi_items())
    # One model has all parameters of a route.
    for params in request.scope["route"].dependant.query_params:
        for name, times in counts.items():
            if times > 1 and name not in params.field_info.annotation.repeatable():
                raise errors.BadSearch(f"The parameter {name[:64]} is given {times} times; give it only once.")


_token = Header(
    alias=TOKEN_HEADER, description="The token that the server printed when it started; the page keeps it in a cookie."
)


async def has_token(ctx: Ctx, token: Annotated[str | None, _token] = None) -> bool:
    return ctx.trusted


HasToken = Annotated[bool, Depends(has_token)]


async def engine_in_use(ctx: Ctx) -> SearchEngine:
    """Returns the engine in use, for which the first requests wait. Its files stay open until the answer is sent."""
    with suppress(TimeoutError):
        await asyncio.wait_for(ctx.live.looked.wait(), _PATIENCE)
    return ctx.live.engine()


InUse = Annotated[SearchEngine, Depends(engine_in_use)]


def may_reveal(trusted: bool, ctx: Context) -> bool:
    return trusted and ctx.settings.serve_originals and not ctx.live.shards


def may_build(trusted: bool, ctx: Context) -> bool:
    allowed = ctx.settings.allow_build
    return not ctx.live.shards and (trusted if allowed is None else allowed)


def check_build(trusted: bool, ctx: Context) -> None:
    """Raises Forbidden if this client may not have an index built."""
    if not may_build(trusted, ctx):
        if trusted or ctx.settings.allow_build is False:
            message = "Indexing is disabled on this server; on its machine, run `sketch-search index build FOLDER`."
            raise errors.Forbidden(message)
        raise errors.Forbidden(f"To index a folder {WITHOUT_TOKEN}")
