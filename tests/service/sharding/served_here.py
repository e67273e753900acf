"""The service over shards in this process, without Ray; a shard can be broken and mended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np

from indexer import Index
from model import Matcher
from service.http.app import create_app
from service.serving import Live
from service.settings import Settings
from service.sharding import Shards
from tests.patience import PATIENCE, wait_until
from tests.service.served import Served, served
from tests.service.sharding.parts_of_index import LocalLink, shards_of


@dataclass(frozen=True)
class Sharded:
    """A running server over shards in this process.

    Attributes:
        served: the server. http: a connection to it. links: to its shards.
    """

    served: Served
    http: httpx.Client
    links: list[LocalLink]

    def answers(self, count: int) -> None:
        """Wait until so many shards answer."""
        wait_until(lambda: sum(shard["answers"] for shard in self.info()["shards"]) == count, "shards are not as asked")

    def info(self) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get("/info").json()
        return found


@contextmanager
def sharded(settings: Settings, index: Index, matcher: Matcher, parts: list[int]) -> Iterator[Sharded]:
    """Serve the photos of an index, divided into shards; parts: the shard of each photo."""
    links = shards_of(index, matcher, [np.flatnonzero(np.array(parts) == n) for n in range(max(parts) + 1)])
    shards = Shards(links, settings.shard_seconds)
    # The command waits for the shards before it serves them.
    shards.refresh(strict=True)
    app = create_app(settings, lambda run: Live(settings, run, matcher=lambda: matcher, shards=shards), at_once=4)
    with served(settings, app) as server, httpx.Client(base_url=server.url, timeout=PATIENCE) as http:
        yield Sharded(server, http, links)
