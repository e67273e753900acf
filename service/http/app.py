"""Builds the application, starts and stops its parts, and answers errors, all in one shape, each with its status."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from sketch_search.indexer import BadInvocation
from sketch_search.model import Matcher
from sketch_search.model.decoding import Decoders
from sketch_search.model.terminal import installed_version
from sketch_search.model.words import UnknownWord
from sketch_search.service.errors import HTTP_ERRORS, QueueFull, ServiceError, Unauthorized, describe_problems
from sketch_search.service.http.context import Context, Uploads, require_key
from sketch_search.service.http.files import page
from sketch_search.service.http.middleware import AccessMiddleware, LimitMiddleware, error_answer
from sketch_search.service.http.routes import api, health, monitoring
from sketch_search.service.serving import Builder, Live, Metrics, Worker
from sketch_search.service.serving.worker import EXPLANATIONS, NEW, PREPARING, SLOW, THUMBNAILS
from sketch_search.service.settings import Settings
from sketch_search.service.sharding import Shards

# The version of the HTTP API, raised with each change of the OpenAPI document.
API_VERSION = "2.13.0"


def create_app(
    settings: Settings | None = None, matcher: Matcher | None = None, shards: Shards | None = None, *, at_once: int = 1
) -> FastAPI:
    """Makes the HTTP API as an ASGI application. Without an index or a checkpoint it answers 503.

    matcher, shards: None for the checkpoint and the index of the settings. at_once: how many searches run at a time.
    """
    chosen = settings if settings is not None else Settings()
    version = installed_version()
    metrics = Metrics(version)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # The owner's are decoded beside those of others.
        decoders = Decoders(sum(lane.at_once + lane.each for lane in (PREPARING, NEW, SLOW, THUMBNAILS, EXPLANATIONS)))
        decoders.start()
        live = Live(chosen, decoders.run, matcher, shards)
        worker = Worker(chosen.queue, metrics.waited, seconds=chosen.queue_seconds, at_once=at_once)
        # Arriving sketches take at most the memory of those that run and wait.
        uploads = Uploads(chosen.max_upload_bytes, chosen.queue + at_once, chosen.upload_seconds)
        builder = Builder(chosen)
        app.state.context = Context(chosen, version, live, worker, uploads, metrics, builder, app.state.token)
        metrics.observe(live, worker)

        async def announce() -> None:
            await live.looked.wait()
            app.state.announce()

        tasks = [asyncio.create_task(live.watch()), asyncio.create_task(announce())]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        builder.close()
        live.close()
        decoders.close()

    app = FastAPI(
        title="sketch-search",
        summary="Draw something, find the photos of it.",
        version=API_VERSION,
        lifespan=lifespan,
        # The documentation pages load scripts from a CDN; the document itself is enough.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    # The separate port of the metrics, if they have one and it is bound.
    app.state.metrics_port = None
    # Called once the index has been opened, or has failed to. Until then the page says so and waits.
    app.state.announce = lambda: None
    # Only the person who started the server can have read it.
    app.state.token = secrets.token_urlsafe(24)
    app.include_router(api)
    app.include_router(health)
    apart = chosen.metrics_port is not None
    app.include_router(monitoring, dependencies=[] if apart else [Depends(require_key)], include_in_schema=not apart)
    app.include_router(page)
    _add_handlers(app, chosen, metrics)
    return app


def _add_handlers(app: FastAPI, chosen: Settings, metrics: Metrics) -> None:
    for error in HTTP_ERRORS:
        app.exception_handler(error)(_answer_typed)
    app.exception_handler(RequestValidationError)(_answer_invalid)
    app.exception_handler(HTTPException)(_answer_http)
    # The one added last is the outermost.
    apart = chosen.metrics_port is not None
    app.add_middleware(LimitMiddleware, per_minute=chosen.rate_limit, metrics_apart=apart)
    if chosen.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(chosen.cors_origins),
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["*"],
            expose_headers=["X-Request-ID", "Retry-After"],
            # Whoever lists an origin expects its pages to reach a server at home.
            allow_private_network=True,
        )
    app.add_middleware(
        AccessMiddleware,
        metrics=metrics,
        hosts=chosen.known_hosts,
        origins=chosen.cors_origins,
        framed=bool(chosen.frame_ancestors),
    )


async def _answer_typed(request: Request, error: Exception) -> Response:
    status, code = next(HTTP_ERRORS[kind] for kind in type(error).__mro__ if kind in HTTP_ERRORS)
    headers = {}
    if isinstance(error, QueueFull):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    nearest = error.nearest if isinstance(error, UnknownWord) else ()
    text = str(error)
    # The others may begin with the name of a parameter or a path, which stays lower case.
    if not isinstance(error, ServiceError | BadInvocation):
        text = text[:1].upper() + text[1:]
    return error_answer(status, code, text, request.state.request_id, headers, nearest)


async def _answer_invalid(request: Request, error: RequestValidationError) -> Response:
    problems = error.errors()
    if any(problem["loc"][0] == "path" for problem in problems):
        return error_answer(404, "not_found", "There is nothing here.", request.state.request_id)
    # A problem's location is ("query", "nprobe", "constrained-int"); the parameter is nprobe.
    named = [{**problem, "loc": problem["loc"][1:]} for problem in problems]
    return error_answer(422, "bad_parameter", f"{describe_problems(named)}.", request.state.request_id)


async def _answer_http(request: Request, error: HTTPException) -> Response:
    known = {
        404: ("not_found", "There is nothing here."),
        405: ("method_not_allowed", f"This path does not support {request.method}."),
    }
    code, message = known.get(error.status_code, ("bad_request", str(error.detail)))
    headers = dict(error.headers or {})
    # A path that answers GET answers HEAD, too (see ``service.http.middleware.LimitMiddleware``).
    if headers.get("Allow") == "GET":
        headers["Allow"] = "GET, HEAD"
    return error_answer(error.status_code, code, message, request.state.request_id, headers)
