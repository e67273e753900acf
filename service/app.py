"""The application: its settings, its parts, its start and its end."""

from __future__ import annotations

import importlib.metadata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from anyio import CapacityLimiter
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from service.answers import KnownHosts, RequestIds, add_error_handlers
from service.errors import NotReady
from service.live import Live
from service.page import page
from service.routes import Context, api, health
from service.settings import Settings
from service.worker import Worker

# Of the HTTP API; the OpenAPI document carries it, so that a change of the document is a change of this.
API_VERSION = "1.2.0"
# Decoding a large photo takes a few hundred MiB.
READERS = 2


def create_app(settings: Settings | None = None) -> FastAPI:
    """The HTTP API as an ASGI application. It starts without index or checkpoint too, and then answers 503."""
    chosen = settings if settings is not None else Settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        live, worker = Live(chosen), Worker(chosen.queue)
        app.state.context = Context(chosen, _installed_version(), live, worker, CapacityLimiter(READERS))
        with suppress(NotReady):  # said in the log, and by every answer that needs the engine
            await live.engine()
        yield
        worker.close()
        await live.close()

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
    app.include_router(api)
    app.include_router(health)
    app.include_router(page)
    add_error_handlers(app)
    if chosen.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(chosen.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["X-Request-ID", "Retry-After"],
        )
    app.add_middleware(KnownHosts, hosts=chosen.known_hosts)
    app.add_middleware(RequestIds)
    return app


def _installed_version() -> str:
    try:
        return importlib.metadata.version("sketch-search")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
