"""The engine that answers now: opened at start, or as soon as it can be."""

from __future__ import annotations

import asyncio
import logging
import time

from indexer import IndexerError
from model import Matcher, ModelError
from service.engine import Engine, open_matcher
from service.errors import NotReady
from service.settings import Settings

# Long enough that a crowd of requests costs one look, short enough that a person does not wait for a new index.
RETRY_SECONDS = 1.0

log = logging.getLogger("sketch_search")


class Live:
    """Holds the one reference to the engine in use. To be used from one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._matcher: Matcher | None = None
        self._engine: Engine | None = None
        self._opening: asyncio.Task[None] | None = None
        self._reason = "The service has not been started."
        self._tried = float("-inf")

    async def engine(self) -> Engine:
        """The engine; where there is none yet, it is tried again, at most every RETRY_SECONDS.

        Raises:
            NotReady: the checkpoint or the index cannot be opened; says why.
        """
        if self._engine is None:
            if self._opening is None and time.monotonic() - self._tried >= RETRY_SECONDS:
                self._opening = asyncio.create_task(self._open())
            if self._opening is not None:
                # Shielded: a client that hangs up must not cancel the opening for all others.
                await asyncio.shield(self._opening)
        if self._engine is None:
            raise NotReady(self._reason)
        return self._engine

    async def _open(self) -> None:
        try:
            self._engine = await asyncio.to_thread(self._opened)
        except (ModelError, IndexerError, OSError) as error:
            if str(error) != self._reason:
                log.warning("not ready: %s", error)
            self._reason = str(error)
        finally:
            self._tried = time.monotonic()
            self._opening = None

    def _opened(self) -> Engine:
        if self._matcher is None:
            self._matcher = open_matcher(self._settings)
        return Engine(self._settings, self._matcher)

    async def close(self) -> None:
        """Let go of the engine."""
        if self._opening is not None:
            await self._opening
        if self._engine is not None:
            self._engine.close()
            self._engine = None
