"""Shards in this process, without Ray: an index cut into parts, links to these that can be broken, and their server."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from sketch_search.indexer import open_index, remove
from sketch_search.model import Matcher
from sketch_search.service.http.app import create_app
from sketch_search.service.schemas.search import SearchResponse
from sketch_search.service.serving.on_ray import Shard
from sketch_search.service.settings import Settings
from sketch_search.service.sharding import IndexedGallery, Pending, ShardLink, Shards, ShardUnavailable, State, overview
from tests.programs import wait_until
from tests.searching import PictureSearcher
from tests.service.served import Served, served

T = TypeVar("T")

# Sums over all photos, as the mean [Ret], and over matrices of other shapes may differ in their last bits.
NEARLY = 5e-6


def cut(index: Path, matcher: Matcher, folder: Path, parts: Sequence[int]) -> list[Path]:
    """Copies of an index below a folder, each of which has lost all photos but those of its part.

    parts: the number of the part that each photo goes into, the photos in the order of their ids.
    """
    with open_index(index, matcher) as opened:
        ids = sorted(opened.ids[opened.wholes].tolist())
    places = []
    for part in sorted(set(parts)):
        places.append(folder / f"shard-{part:04}")
        shutil.copytree(index, places[-1])
        if others := [photo for photo, its in zip(ids, parts, strict=True) if its != part]:
            remove([], places[-1], ids=others)
    return places


class LocalLink:
    """A link to a shard in this process.

    Attributes:
        index: the shard's. asked: the questions so far. broken: whether it answers no more. lies: turn the answers to
        questions of these names, and "state", into others.
    """

    def __init__(self, name: str, folder: Path, matcher: Matcher) -> None:
        self.name, self.index = name, Shard(folder, lambda: matcher)
        self.asked: list[Callable[..., Any]] = []
        self.broken = False
        self.lies: dict[str, Callable[[Any], Any]] = {}

    def state(self) -> Pending[State]:
        def looked() -> State:
            self.index.refresh()
            return self.index.state()

        return self._told("state", looked)

    def ask(self, generation_id: str, question: Callable[..., T], *arguments: Any) -> Pending[T]:
        self.asked.append(question)
        return self._told(question.__name__, lambda: self.index.answer(generation_id, question, *arguments))

    def _told(self, question: str, answer: Callable[[], T]) -> Pending[T]:
        def told(seconds: float) -> T:
            if self.broken:
                raise ShardUnavailable("it is broken")
            return self.lies.get(question, lambda truth: truth)(answer())

        return told

    def ids(self) -> set[int]:
        return set(self.ask(self.state()(0).generation_id, overview)(0).ids.tolist())


def links_to(folders: Sequence[Path], matcher: Matcher) -> list[LocalLink]:
    return [LocalLink(f"shard-{number}", folder, matcher) for number, folder in enumerate(folders)]


def gallery_of(links: Sequence[ShardLink]) -> IndexedGallery:
    shards = Shards(links, seconds=0)
    shards.refresh(strict=True)
    return shards.gallery()


def searcher_of(links: Sequence[LocalLink], matcher: Matcher) -> PictureSearcher:
    return PictureSearcher(gallery_of(links), matcher)


def assert_same(found: SearchResponse, expected: SearchResponse) -> None:
    """Ids and ranking are equal, and scores up to the last bits of sums; clusters are counted shard by shard."""
    assert [hit.id for hit in found.results] == [hit.id for hit in expected.results]
    # Squares, because a distance is a root: next to 0 it changes far more than what is under it.
    squares = [[hit.raw_score**2 for hit in outcome.results] for outcome in (found, expected)]
    assert squares[0] == pytest.approx(squares[1], rel=NEARLY, abs=NEARLY)
    scores = [[hit.score for hit in outcome.results] for outcome in (found, expected)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    assert [(hit.rank, hit.paths, hit.copies) for hit in found.results] == [
        (hit.rank, hit.paths, hit.copies) for hit in expected.results
    ]
    kinds = [
        [(kind.best.id, kind.size, [hit.id for hit in kind.more]) for kind in outcome.groups or ()]
        for outcome in (found, expected)
    ]
    assert kinds[0] == kinds[1]
    own: dict[str, Any] = {"results": (), "groups": None, "clusters": (), "pairs_scored": 0}
    own |= {"timings_ms": expected.timings_ms, "generation": expected.generation}
    assert found.model_copy(update=own) == expected.model_copy(update=own)


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
        wait_until(lambda: sum(shard["answers"] for shard in self.info()["shards"]) == count, "shards are not as asked")

    def info(self) -> dict[str, Any]:
        return self.http.get("/info").json()


@contextmanager
def sharded(settings: Settings, matcher: Matcher, links: list[LocalLink]) -> Iterator[Sharded]:
    shards = Shards(links, settings.shard_seconds)
    # The command waits for the shards before it serves them.
    shards.refresh(strict=True)
    app = create_app(settings, matcher, shards, at_once=4)
    with served(settings, app) as server:
        yield Sharded(server, server.http, links)
