import asyncio
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from fastapi.routing import APIRoute
from pydantic import SecretStr

from sketch_search.indexer import BuildRequest, RemovalReport
from sketch_search.indexer.store.folders import LocalFolder
from sketch_search.model.limits import at_pauses, pause
from sketch_search.model.search import photos as search_of_photos
from sketch_search.service.errors import QueueFull
from sketch_search.service.gallery import LocalGallery
from sketch_search.service.http import context, create_app, routes
from sketch_search.service.serving import builder
from sketch_search.service.serving import worker as turns
from sketch_search.service.serving.live import LiveIndex
from sketch_search.service.settings import Settings
from tests.programs import PATIENCE, wait_for, wait_until
from tests.service.busy_server import begun_upload, never, occupied, wait_until_held, wait_until_room_is
from tests.service.served import SEARCH, Served, asked, check_is_stranger, connect, error, served, started
from tests.service.small_gallery import MAX_UPLOAD, PHOTOS


@pytest.fixture
def small(settings: Settings) -> Iterator[Served]:
    with served(settings, queue=1) as server:
        yield server


def test_the_service_waits_for_an_index(settings: Settings, index_path: Path, tmp_path: Path, sketch: bytes) -> None:
    missing = tmp_path / "later"
    with served(settings, index=missing) as server:
        http = server.http
        assert http.get("/healthz").status_code == 200
        for answer in (http.get("/readyz"), http.post("/search", content=sketch), http.get("/photos/1")):
            assert error(answer) == (503, "not_ready")
            assert "index" in answer.json()["error"]["message"].lower()
        info = http.get("/info").json()
        assert (info["ready"], info["index"]) == (False, None)
        assert "sbir_ready 0.0" in http.get("/metrics").text
        assert "index" in info["reason"].lower()
        assert "you need the server's token" in info["remedy"]
        assert http.get("/info", headers=server.token).json()["remedy"] is None

        shutil.copytree(index_path, tmp_path / "copy")
        (tmp_path / "copy").rename(missing)
        wait_until(lambda: http.get("/readyz").status_code == 200, "the service is not ready")
        assert http.post("/search", content=sketch).status_code == 200
        assert http.get("/info").json()["ready"] is True


def test_a_search_that_comes_before_the_index_is_open_waits_for_it(
    settings: Settings, sketch: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening, refresh, waits = threading.Event(), LiveIndex.refresh, threading.Event()

    class Awaited(asyncio.Event):
        async def wait(self) -> Literal[True]:
            waits.set()
            return await super().wait()

    def slow(index: LiveIndex) -> bool:
        wait_for(opening, "the test has not ended")
        return refresh(index)

    monkeypatch.setattr(LiveIndex, "refresh", slow)
    with started(create_app(settings), settings) as server, ThreadPoolExecutor(1) as pool:
        assert error(server.http.get("/readyz")) == (503, "not_ready")
        server.context.live.looked = Awaited()
        answer = pool.submit(server.http.post, "/search", content=sketch)
        wait_until(lambda: waits.is_set() or answer.done(), "the search does not wait")
        opening.set()
        assert answer.result().status_code == 200


def test_a_server_whose_photos_are_all_gone_is_not_ready_and_searches(
    settings: Settings, gallery: Path, tmp_path: Path, sketch: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted = tmp_path / "photos"
    with asked(settings, gallery=(mounted,)) as http, asked(settings, gallery=(mounted,), serve_originals=False) as few:
        refused = http.get("/readyz")
        assert error(refused) == (503, "not_ready")
        assert "SKETCH_SEARCH_GALLERY" in refused.text
        assert http.post("/search", content=sketch).status_code == few.get("/readyz").status_code == 200
        mounted.symlink_to(gallery)
        assert http.get("/readyz").status_code == 200
        over = threading.Event()
        monkeypatch.setattr(routes, "DISK_SECONDS", 0.01)
        monkeypatch.setattr(LocalFolder, "is_there", lambda folder: wait_for(over, "the test has not ended"))
        assert [http.get("/readyz").status_code for _ in range(3)] == [200] * 3
        over.set()


def test_without_a_checkpoint_clients_with_the_key_read_where_to_get_one(settings: Settings, tmp_path: Path) -> None:
    for key, headers in ((None, {}), (SecretStr("key"), {"x-api-key": "key"})):
        missing = {"weights": tmp_path / "none.safetensors", "index": tmp_path / "none"}
        with asked(settings, **missing, api_key=key) as http:
            answer = http.get("/readyz")
            assert error(answer) == (503, "not_ready")
            assert ("none.safetensors" in answer.text) is (key is None)
            info = http.get("/info", headers=headers).json()
            assert "there is no checkpoint at" in info["reason"]
            assert (info["remedy"], info["allows"]["build"]) == (None, False)
            assert http.get("/healthz").status_code == 200


def test_a_full_queue_is_answered_at_once_with_when_to_come_back(small: Served, sketch: bytes) -> None:
    with ThreadPoolExecutor(1) as pool, occupied(small):
        waiting = pool.submit(small.http.post, "/search", content=sketch)
        wait_until_room_is(small, False)
        refused = small.http.post("/search", content=sketch)
        assert error(refused) == (429, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        assert small.http.get("/healthz").status_code == 200
        assert small.http.get("/thumbnails/1").status_code == 200
        assert not waiting.done()
    assert waiting.result().status_code == 200
    assert small.http.post("/search", content=sketch).status_code == 200


def test_a_sketch_of_which_nothing_comes_gives_way_if_it_is_full(settings: Settings, sketch: bytes) -> None:
    part = bytes(MAX_UPLOAD - 1000)
    with served(settings, queue=0) as server, begun_upload(server, part) as stalled:
        wait_until_held(server, len(part))
        assert server.http.post("/search", content=sketch).status_code == 200
        wait_until_held(server, len(part))
        assert error(server.http.post("/search", content=part)) == (415, "unsupported_image")
        wait_until_held(server, 0)
        assert stalled.recv(65536).startswith(b"HTTP/1.1 429 ")


def test_sketches_of_the_client_that_holds_most_give_way_to_those_of_others(settings: Settings, sketch: bytes) -> None:
    part = bytes(MAX_UPLOAD // 3)
    with served(settings, queue=1) as server, ExitStack() as crowd:
        uploads, request = server.context.uploads, SEARCH + b"Content-Length: %d\r\n\r\n" % (2 * MAX_UPLOAD // 3)
        honest = crowd.enter_context(connect(server, "127.0.0.2"))
        honest.sendall(request + part)
        wait_until_held(server, len(part))
        many = [crowd.enter_context(begun_upload(server, part)) for _ in range(9)]
        wait_until(lambda: len(uploads._arriving) < 7, "none gives way")
        assert many[0].recv(65536).startswith(b"HTTP/1.1 429 ")
        honest.sendall(part + bytes(2 * MAX_UPLOAD // 3 - 2 * len(part)))
        assert honest.recv(65536).startswith(b"HTTP/1.1 415 ")


def test_behind_a_proxy_the_cookie_is_secure_and_links_are_relative(settings: Settings, gallery: Path) -> None:
    with served(settings, allowed_hosts=("photos.example",)) as server:
        forwarded = {"host": "photos.example", "x-forwarded-for": "203.0.113.7", "x-forwarded-proto": "https"}
        server.http.headers.update(forwarded)
        linked = re.findall(r'(?:href|src)="([^"#]+)"', server.http.get("/").text)
        # The proxy has removed the path.
        assert {path: server.http.get(f"/{path}").status_code for path in linked} == dict.fromkeys(linked, 200)
        answer = server.http.get("/", params={"token": server.app.state.token})
        assert (answer.headers["location"], "Secure" in answer.headers["set-cookie"]) == ("./", True)
        check_is_stranger(server.http, gallery)


@dataclass
class Slow:
    """Work that takes for as long as the test wants; ``begun`` counts what has begun."""

    begun: int = 0
    over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait(self) -> None:
        with self._lock:
            self.begun += 1
        wait_for(self.over, "the test has not ended")

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def waiting(*given: Any, **named: Any) -> Any:
            self.wait()
            return function(*given, **named)

        return waiting


@pytest.fixture
def slow() -> Iterator[Slow]:
    work = Slow()
    yield work
    work.over.set()


@pytest.fixture
def slow_disk(settings: Settings, slow: Slow, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A server that anybody may have build, with photos on a disk that does not answer, nor any folder of it."""
    with served(settings, allow_build=True) as server:
        for name in ("read", "read_part", "digest"):
            monkeypatch.setattr(LocalFolder, name, slow.before(getattr(LocalFolder, name)))
        for name in ("read_summary", "folders_in", "count_files"):
            monkeypatch.setattr(routes, name, slow.before(getattr(routes, name)))
        report = RemovalReport("g000001", photos=PHOTOS, files=1)
        monkeypatch.setattr("sketch_search.indexer.remove", slow.before(lambda *given: report))
        monkeypatch.setattr(BuildRequest, "check", slow.before(lambda *given: None))
        monkeypatch.setattr(builder, "start_child", slow.before(builder.start_child))
        yield server
        slow.over.set()


ALL = "&".join(f"photo={number}" for number in range(1, 13))
IDS = "&".join(f"id={number}" for number in range(1, 24))
# The worst request of each route, and whether it waits for the disk.
WORST = {
    ("POST", "/explain"): (f"/explain?nearest=20&{ALL}", True),
    ("POST", "/locate"): (f"/locate?{ALL}", False),
    ("GET", "/photos"): (f"/photos?{IDS}", False),
    ("GET", "/photos.zip"): (f"/photos.zip?{IDS}", True),
    ("GET", "/photos/{photo_id}"): ("/photos/7", True),
    ("GET", "/photos/{photo_id}/facts"): ("/photos/7/facts", True),
    ("POST", "/photos/{photo_id}/reveal"): ("/photos/7/reveal", True),
    ("GET", "/thumbnails/{photo_id}"): ("/thumbnails/7?size=1023", True),
    ("GET", "/thumbnails/{photo_id}/{content}"): ("/thumbnails/8/CONTENT?size=1022", True),
    ("GET", "/clusters/{cluster_id}"): ("/clusters/0?k=50", False),
    ("POST", "/build"): ("/build", True),
    ("POST", "/remove"): ("/remove?folder=/", True),
    ("GET", "/folders"): ("/folders?path=/", True),
    ("GET", "/gallery"): ("/gallery", True),
    ("GET", "/words"): ("/words?limit=1000", False),
    ("GET", "/info"): ("/info", False),
    ("GET", "/healthz"): ("/healthz", False),
    ("GET", "/readyz"): ("/readyz", False),
    ("GET", "/metrics"): ("/metrics", False),
}


def test_every_route_has_its_worst_request() -> None:
    every = {
        (method, route.path)
        for router in (routes.api, routes.health, routes.monitoring)
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
    assert every == {*WORST, ("POST", "/search")}


@pytest.mark.parametrize("route", WORST)
def test_a_search_is_answered_beside_any_other_request(
    slow_disk: Served, slow: Slow, sketch: bytes, route: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "may_reveal", lambda *given: True)
    monkeypatch.setattr(routes, "may_reveal", lambda *given: True)
    http, (path, waits) = slow_disk.http, WORST[route]
    path = path.replace("CONTENT", http.get("/photos?id=8").json()["photos"][0]["thumbnail_url"].rpartition("/")[2])
    body = sketch if route[1] in ("/explain", "/locate") else None
    with ThreadPoolExecutor(2) as pool:
        # One more than may run, so that one of them waits for its turn.
        others = [pool.submit(http.request, route[0], path, content=body) for _ in range(2)]
        if waits:
            wait_until(lambda: slow.begun, "it does not wait for the disk")
        assert http.post("/search?quality=best", content=sketch).status_code == 200
        # Nor does it keep anybody from looking up what is in memory.
        assert http.get("/info").status_code == http.get("/photos?id=1").status_code == 200
        assert not waits or not any(other.done() for other in others)
        slow.over.set()
        assert {other.result().status_code for other in others} <= {200, 202, 204, 404, 409}


def test_searches_pass_downloads(server: Served, slow: Slow, sketch: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalGallery, "part_of_photo", slow.before(LocalGallery.part_of_photo))
    with ExitStack() as crowd:
        # More than there are threads.
        for _ in range(50):
            connection = crowd.enter_context(connect(server))
            connection.sendall(b"GET /photos/9 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: slow.begun and server.context.originals.waiting >= 20, "they do not wait")
        assert server.http.post("/search", content=sketch).status_code == 200
        slow.over.set()


def test_searches_pass_a_long_one(server: Served, slow: Slow, sketch: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = list[object]()

    def gives_way() -> None:
        """The first search never ends its photos, as if there were millions."""
        jobs.append(at_pauses.get(None))
        while jobs[-1] == jobs[0] and not slow.over.is_set():
            slow.begun += 1
            pause()

    monkeypatch.setattr(turns, "GIVE_WAY_SECONDS", 0)
    monkeypatch.setattr(search_of_photos, "pause", gives_way)
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(server.http.post, "/search?quality=best", content=sketch)
        wait_until(lambda: slow.begun, "it has not begun")
        assert server.http.post("/search", content=sketch).status_code == 200
        assert not long.done()
        slow.over.set()
        assert long.result().status_code == 200


def test_an_explanation_ends_when_its_client_is_gone(slow_disk: Served, slow: Slow, sketch: bytes) -> None:
    slow.over.set()
    assert slow_disk.http.post("/explain?photo=1", content=sketch).status_code == 200
    of_one = slow.begun
    slow.over.clear()
    request = b"POST /explain?photo=1&photo=2&photo=3 HTTP/1.1\r\nHost: localhost\r\n"
    with connect(slow_disk) as connection:
        connection.sendall(request + b"Content-Length: %d\r\n\r\n" % len(sketch) + sketch)
        wait_until(lambda: slow.begun > of_one, "it does not read")
    explanations = slow_disk.context.explanations
    slow.over.set()
    wait_until(lambda: not explanations.running, "it goes on")
    assert slow.begun <= 2 * of_one


def test_the_owner_is_answered_whoever_fills_the_queues(settings: Settings, sketch: bytes) -> None:
    with served(settings) as server, ExitStack() as crowd:
        its, jobs = server.context, list[asyncio.Future[None]]()
        crowd.callback(lambda: [server.loop.call_soon_threadsafe(job.cancel) for job in jobs])

        async def fill() -> None:
            for lane in (its.upkeep, its.thumbnails, its.originals, its.explanations, its.lookups):
                for number in range(200):
                    jobs.append(asyncio.ensure_future(crowded(lane, f"{number}")))

        async def crowded(lane: turns.Turns, client: str) -> None:
            with suppress(QueueFull):
                async with lane.turn(client):
                    await never()

        asyncio.run_coroutine_threadsafe(fill(), server.loop).result(PATIENCE)
        wait_until(lambda: its.upkeep.waiting == turns.UPKEEP.waiting, "they do not wait")
        assert error(server.http.get("/gallery")) == (429, "queue_full")
        for path in ("/gallery", "/folders", "/thumbnails/1", "/photos/1", "/photos/1/facts", "/info"):
            assert server.http.get(path, headers=server.token).status_code == 200
        for path in ("/search", "/explain?photo=1"):
            assert server.http.post(path, headers=server.token, content=sketch).status_code == 200


def test_requests_that_wait_for_thumbnails_leave_room_for_others(slow_disk: Served, slow: Slow, sketch: bytes) -> None:
    thumbnails = slow_disk.context.thumbnails
    _, running, waiting = turns.THUMBNAILS
    with ExitStack() as crowd:
        for number in range(running + waiting // 2):
            connection = crowd.enter_context(connect(slow_disk))
            connection.sendall(b"GET /thumbnails/9?size=%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % (200 + number))
        wait_until(lambda: thumbnails.waiting == waiting // 2, "they do not wait")
        assert error(slow_disk.http.get("/thumbnails/9")) == (429, "queue_full")
        assert slow_disk.http.post("/search", content=sketch).status_code == 200
        assert slow_disk.http.get("/readyz").status_code == 200
    wait_until(lambda: not thumbnails.waiting, "they have not left")
