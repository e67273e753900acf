"""Gives the handlers what they share: the objects of the application, and the checks of who asks."""

import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, TypeVar, cast

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import Depends, Header, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from sketch_search.service.engine import Engine
from sketch_search.service.errors import BadSearch, Forbidden, Unauthorized
from sketch_search.service.http.middleware import cookie_name, network
from sketch_search.service.http.upload import Uploads
from sketch_search.service.serving import Builder, Live, Metrics, Worker
from sketch_search.service.serving.worker import (
    EXPLANATIONS,
    LOOKUPS,
    ORIGINALS,
    THUMBNAILS,
    UPKEEP,
    Turns,
    cancelled_by,
)
from sketch_search.service.settings import Settings

T = TypeVar("T")

TOKEN_HEADER = "X-SBIR-Token"
# The end of a sentence.
WITHOUT_TOKEN = (
    "you need the server's token: open the address that the server printed when it started, which includes it, or send "
    f"it as the header {TOKEN_HEADER}. It is also in server.json, in the folder of the index."
)


@dataclass(frozen=True)
class Context:
    """Holds the objects that all handlers of one application share.

    lookups, thumbnails, originals, explanations, upkeep: the turns of each ``Lane``. looks: of looking whether folders
    are there.
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
    looks: CapacityLimiter = field(default_factory=partial(CapacityLimiter, 1))


async def context(request: Request) -> Context:
    """Returns the application's context, made when it started."""
    return cast(Context, request.app.state.context)


Ctx = Annotated[Context, Depends(context)]
_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="Required if the server has SBIR_API_KEY set.")
_bearer = HTTPBearer(auto_error=False, description="The same key as a bearer token.")


async def require_key(
    ctx: Ctx,
    header: Annotated[str | None, Depends(_header)],
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> None:
    """Raises Unauthorized unless the request carries the API key, if there is one."""
    if ctx.settings.api_key is None:
        return
    given = header or (bearer.credentials if bearer else "")
    # HTTP headers are bytes that the server has read as Latin-1.
    if not secrets.compare_digest(given.encode("latin-1"), ctx.settings.api_key.get_secret_value().encode()):
        raise Unauthorized("This server requires its API key, as the header X-API-Key or as a bearer token.")


async def refuse_doubles(request: Request) -> None:
    """Raises BadSearch if a query parameter that is not a list is given twice."""
    given = Counter(name for name, _ in request.query_params.multi_items())
    # One model has all parameters of a route.
    for params in request.scope["route"].dependant.query_params:
        for name, times in given.items():
            if times > 1 and name not in params.field_info.annotation.repeatable():
                raise BadSearch(f"The parameter {name[:64]} is given {times} times; give it only once.")


_token = Header(
    alias=TOKEN_HEADER, description="The token that the server printed when it started; the page keeps it in a cookie."
)


async def has_token(request: Request, ctx: Ctx, token: Annotated[str | None, _token] = None) -> bool:
    """Returns True if the client has the token, which only the person who started the server can have read."""
    given = token or request.cookies.get(cookie_name(request.scope), "")
    return secrets.compare_digest(given.encode("latin-1", "replace"), ctx.token.encode())


HasToken = Annotated[bool, Depends(has_token)]


async def engine_in_use(ctx: Ctx) -> Engine:
    """Returns the engine in use. Its files stay open until the answer is sent, however slow the client is."""
    return ctx.live.engine()


InUse = Annotated[Engine, Depends(engine_in_use)]


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
            raise Forbidden(message)
        raise Forbidden(f"To index a folder {WITHOUT_TOKEN}")


def client_of(request: Request) -> str:
    return network(request.client.host if request.client else "")


@asynccontextmanager
async def connected(request: Request) -> AsyncIterator[None]:
    """Cancels the block if the client disconnects, and raises ClientGone. Its body has been read, or has none."""

    async def listen() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    async with cancelled_by(listen()):
        yield


async def in_turn(request: Request, turns: Turns, job: Callable[[], T]) -> T:
    """Returns the result of a job that a thread runs in the client's turn. Raises ClientGone, QueueFull."""
    async with connected(request), turns.turn(client_of(request)):
        return await run_sync(job)
