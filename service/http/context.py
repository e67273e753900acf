"""Gives the handlers what they share: the objects of the application, and the checks of who asks."""

import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, TypeVar, cast

import anyio.to_thread
from anyio import CapacityLimiter
from fastapi import Depends, Header, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from sketch_search.service.engine import Engine
from sketch_search.service.errors import BadSearch, ClientGone, Forbidden, Unauthorized
from sketch_search.service.http.middleware import cookie_name
from sketch_search.service.http.upload import Uploads
from sketch_search.service.serving import Builder, Live, Metrics, Worker
from sketch_search.service.settings import Settings

T = TypeVar("T")

TOKEN_HEADER = "X-SBIR-Token"
# The end of a sentence.
WITHOUT_TOKEN = (
    "you need the server's token: open the address that the server printed when it started, which includes it, or send "
    f"it as the header {TOKEN_HEADER}. It is also in server.json, in the folder of the index."
)
# Quick look-ups in the index that may run at the same time, beside searches.
LOOKUPS = 4
# Photos that may be read at the same time, for thumbnails and for downloads each. Decoding a large one takes a few
# hundred MiB.
READERS = 2


@dataclass(frozen=True)
class Context:
    """Holds the objects that all handlers of one application share."""

    settings: Settings
    version: str
    live: Live
    worker: Worker
    uploads: Uploads
    metrics: Metrics
    builder: Builder
    token: str
    lookups: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(LOOKUPS))
    thumbnails: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(READERS))
    originals: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(READERS))


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


async def look_up(ctx: Context, job: Callable[[], T]) -> T:
    return await anyio.to_thread.run_sync(job, limiter=ctx.lookups)


async def read_in_turn(request: Request, turns: CapacityLimiter, job: Callable[[], T]) -> T:
    """Returns the result of a slow job, run in its turn. Raises ClientGone if the client has disconnected by then."""
    async with turns:
        if await request.is_disconnected():
            raise ClientGone("The client disconnected.")
        return await anyio.to_thread.run_sync(job)
