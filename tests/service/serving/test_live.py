import itertools
import json
import logging
import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pydantic import SecretStr

from sketch_search import Remote, Results
from sketch_search.indexer import BuildRequest, Index, build
from sketch_search.model import Matcher
from sketch_search.service.settings import Settings
from tests.benchmarks.large_index import write_large_shards
from tests.benchmarks.results import Soak, soak
from tests.pictures import ODD_FILES, encoded
from tests.programs import PATIENCE, wait_until
from tests.service.busy_server import occupied
from tests.service.served import Served, address, error, metrics, running, served
from tests.service.small_gallery import CLUSTERS, PHOTOS, draw_photo, draw_sketch

CLIENTS = 4
GOOD = {"search 200", "thumbnail 200", "health 200, 200"}


class Growing:
    """A gallery and its index, built again with another photo as often as asked."""

    def __init__(self, folder: Path, matcher: Matcher) -> None:
        self.gallery, self.index = folder / "gallery", folder / "index"
        self._matcher = matcher
        self.gallery.mkdir()
        self.photos = 0
        for _ in range(6):
            self._add_photo()
        self.generation = self.build()

    def _add_photo(self) -> None:
        (self.gallery / f"{self.photos:03}.png").write_bytes(encoded(draw_photo(self.photos)))
        self.photos += 1

    def build(self, index: Path | None = None) -> str:
        return build(
            index or self.index, BuildRequest([self.gallery], clusters=2, embedder="ret"), self._matcher
        ).generation

    def grow(self) -> str:
        """Builds after another photo has come, and returns the generation that is live now."""
        self._add_photo()
        return self.build()

    def grow_damaged(self, damage: str) -> None:
        """Makes the next generation live as a build does, but it is no good."""
        elsewhere = Path(shutil.copytree(self.index, self.index.with_name("elsewhere")))
        self._add_photo()
        for path in (elsewhere / self.build(elsewhere)).glob("centroid_*.npy"):
            if damage == "a short file":
                os.truncate(path, 100)
            elif (array := np.load(path)).dtype.kind == "f":
                np.save(path, np.full_like(array, np.nan))
        for path in elsewhere.glob("*/*"):
            if not (there := self.index / path.relative_to(elsewhere)).exists():
                there.parent.mkdir(exist_ok=True)
                path.rename(there)
        os.replace(elsewhere / "CURRENT", self.index / "CURRENT")
        shutil.rmtree(elsewhere)


@pytest.fixture
def growing(tmp_path: Path, matcher: Matcher) -> Growing:
    return Growing(tmp_path, matcher)


@pytest.fixture
def swapping(growing: Growing, settings: Settings) -> Iterator[Served]:
    with served(settings, index=growing.index) as running:
        yield running


def wait_for_generation(http: httpx.Client, name: str) -> None:
    wait_until(lambda: http.get("/info").json()["index"]["generation"] == name, f"{name} is not live")


@contextmanager
def load(http: httpx.Client) -> Iterator[Counter[str]]:
    """While the block runs, CLIENTS threads search, fetch thumbnails and ask how the server is; what they are told."""
    told: Counter[str] = Counter()
    over = threading.Event()
    sketches = [encoded(draw_sketch(seed)) for seed in range(3)]

    def ask(number: int) -> None:
        while not over.is_set():
            number += 1
            try:
                found = http.post("/search", content=sketches[number % 3], params={"nprobe": "all"})
                told[f"search {found.status_code}"] += 1
                if found.status_code == 200:
                    body = found.json()
                    told[f"{body['generation']} {body['candidates']}"] += 1
                    told[f"thumbnail {http.get(body['results'][0]['thumbnail_url']).status_code}"] += 1
                told[f"health {http.get('/healthz').status_code}, {http.get('/readyz').status_code}"] += 1
            except httpx.HTTPError as problem:
                told[repr(problem)] += 1

    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(ask, number) for number in range(CLIENTS)]
        try:
            yield told
        finally:
            over.set()
    for client in clients:
        client.result()


def test_generations_swap_under_load_without_a_failed_request(growing: Growing, swapping: Served) -> None:
    swap_under_load(growing, swapping, Soak(), builds=2)


def test_a_build_runs_until_photos_show(growing: Growing, swapping: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def state() -> tuple[bool, int]:
        info = swapping.http.get("/info").json()
        return info["build"]["running"], info["index"]["photos"]

    assert state() == (False, growing.photos)
    opened = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr("sketch_search.service.serving.live.check_searches", lambda searcher: opened.wait(PATIENCE))
        growing.grow()
        assert state() == (True, growing.photos - 1)
        opened.set()
        wait_until(lambda: state() == (False, growing.photos), "the build does not end")


@pytest.mark.soak
def test_many_generations_swap_under_load_without_a_failed_request(growing: Growing, swapping: Served) -> None:
    with soak("Requests answered while another build went live 60 times") as run:
        swap_under_load(growing, swapping, run, builds=60)


def swap_under_load(growing: Growing, swapping: Served, run: Soak, builds: int) -> None:
    """``run``: gets how many requests were made, and how many of them failed."""
    photos = {growing.generation: growing.photos}
    with load(swapping.http) as told:
        for _ in range(builds):
            name = growing.grow()
            photos[name] = growing.photos
            wait_for_generation(swapping.http, name)
        searched = f"{name} {growing.photos}"
        wait_until(lambda: told[searched], "the last generation is not searched")
    assert swapping.context.live.swaps == builds
    found = {key: count for key, count in told.items() if key.startswith("g")}
    assert set(found) <= {f"{name} {count}" for name, count in photos.items()}
    assert len(found) > 1
    answers = {key: count for key, count in told.items() if key not in found}
    run.times = sum(answers.values())
    run.failed = sum(count for key, count in answers.items() if key not in GOOD)
    assert answers.keys() == GOOD


def test_a_search_in_flight_is_answered_by_its_own_generation(growing: Growing, swapping: Served) -> None:
    before = growing.generation
    with ThreadPoolExecutor(1) as pool:
        with occupied(swapping):
            waiting = pool.submit(swapping.http.post, "/search", content=encoded(draw_sketch()))
            wait_until(lambda: swapping.context.worker.held == 2, "the search does not wait")
            for _ in range(2):
                wait_for_generation(swapping.http, growing.grow())
            assert files_open_below(growing.index / before)
        found = waiting.result().json()
        assert (found["generation"], found["candidates"]) == (before, 6)
        wait_until(lambda: not files_open_below(growing.index / before), f"{before} is still open")


@pytest.mark.parametrize("damage", ["a short file", "no numbers"])
def test_a_damaged_generation_is_refused_and_the_old_one_stays(
    growing: Growing, swapping: Served, damage: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sketch_search.service.serving.live.RETRY_SECONDS", 0.0)
    caplog.set_level(logging.INFO, "sketch_search")
    sketch = encoded(draw_sketch())
    http = swapping.http
    before = growing.generation
    results = http.post("/search", content=sketch).json()["results"]
    growing.grow_damaged(damage)
    for _ in range(3):
        swapping.context.live.refresh()
    info = http.get("/info").json()
    assert (info["ready"], info["reason"], info["index"]["generation"]) == (True, None, before)
    assert "index build" in info["refused"] or "index verify" in info["refused"]
    assert "sbir_index_refused 1.0" in http.get("/metrics").text
    assert http.post("/search", content=sketch).json()["results"] == results
    assert http.get("/readyz").status_code == 200
    refusals = [record for record in caplog.records if "stays live" in record.getMessage()]
    assert len(refusals) == 1
    assert before in refusals[0].getMessage()

    shutil.rmtree(growing.index)
    wait_until(lambda: "there is no index" in (http.get("/info").json()["refused"] or ""), "it is not refused")
    assert http.post("/search", content=sketch).json()["results"] == results
    # The name of the new generation is that of the old one, because the index began anew.
    growing.build()
    wait_until(lambda: http.get("/info").json()["index"]["photos"] == growing.photos, "the new index is not live")
    wait_until(lambda: http.get("/info").json()["refused"] is None, "it is still refused")
    assert len(http.post("/search", content=sketch).json()["results"]) == growing.photos


def test_an_unforeseen_error_is_logged_once_and_does_not_end_the_watch(
    growing: Growing, swapping: Served, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = threading.Semaphore(0)

    def fails() -> bool:
        looked.release()
        raise RuntimeError("unforeseen")

    http = swapping.http
    with monkeypatch.context() as patch:
        # Not for all servers of this process.
        patch.setattr(swapping.context.live.source, "refresh", fails)
        for _ in range(3):
            assert looked.acquire(timeout=PATIENCE)
        assert http.get("/readyz").status_code == 200
    wait_for_generation(http, growing.grow())
    assert [record.exc_text for record in caplog.records if "looking for a new generation" in record.getMessage()]
    assert sum("looking for a new generation" in record.getMessage() for record in caplog.records) == 1


def files_open_below(folder: Path) -> list[str]:
    """The files below a folder that this process has open, or mapped into memory."""
    if not Path("/proc/self/maps").exists():
        pytest.skip("open files are listed in /proc")
    found = Path("/proc/self/maps").read_text().splitlines()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # another thread may have closed it
            found.append(os.readlink(link))
    return [line for line in found if f"{folder}/" in line]


# The sentence that the soak writes down.
SOAKED = "Requests of every kind in a row, with odd and damaged files among them. Each is answered as it should be"

# Far below what the uploads, pictures or answers of so many requests would take if they were kept, above what an
# allocator keeps for itself.
GROWTH = 8 * 1024 * 1024


def requests(http: httpx.Client) -> Iterator[tuple[str, httpx.Response, int]]:
    """Makes requests of every kind without end: the name of each, its answer, and the status that it should have."""
    sketches = [encoded(draw_sketch(seed).resize((512, 512))) for seed in range(4)]
    # Only odd files are used that take less than a second each.
    odd_files = itertools.cycle(odd for odd in ODD_FILES if len(odd.data) < 200_000 and odd.name != "very long.png")
    for turn in itertools.count():
        which, photo = turn % len(sketches), 1 + turn % PHOTOS
        yield f"sketch {which}", http.post("/search", content=sketches[which]), 200
        for odd in itertools.islice(odd_files, 2):
            yield odd.name, http.post("/search", content=odd.data), odd.as_sketch
        yield "a form", http.post("/search", files={"file": sketches[0]}), 200
        yield f"thumbnail {photo}", http.get(f"/thumbnails/{photo}", params={"size": 64}), 200
        yield f"photo {photo}", http.get(f"/photos/{photo}"), 200
        yield "too many bytes", http.post("/search", content=bytes(600_000)), 413
        yield "nothing", http.get(f"/photos/{1000 + turn}"), 404
        yield "unknown", http.post("/search", params={f"n{turn}": "1"}), 422


@pytest.mark.soak
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc")
def test_ten_thousand_requests_leave_memory_flat(settings: Settings, tmp_path: Path) -> None:
    with (
        soak(SOAKED) as run,
        running(settings, tmp_path / "log", SKETCH_SEARCH_MAX_UPLOAD_BYTES="500000") as process,
        httpx.Client(base_url=address(process), timeout=PATIENCE) as http,
    ):
        first: dict[str, Any] = {}
        for name, answer, status in itertools.islice(requests(http), 11_000):
            run.times += 1
            assert answer.status_code == status, answer.text
            if status == 200:
                shown = answer.json()["results"] if "json" in answer.headers["content-type"] else answer.content
                assert first.setdefault(name, shown) == shown
            if run.times == 1000:
                before = metrics(http)["process_resident_memory_bytes"]
        grown = metrics(http)["process_resident_memory_bytes"] - before
        run.grown_mib = grown / 2**20
        assert grown < GROWTH


WORST_FILTERS: list[dict[str, Any]] = [
    {"folder": [f"{number:03}" for number in range(60)], "after": "2999-01-01"},
    {"folder": [f"{number:03}" for number in range(60)], "offset": 190_000},
    {"after": "1970-01-02", "offset": 199_000},
    {"folder": [f"no {number}" for number in range(60)]},
]


@pytest.mark.parametrize("photos", [2_000, pytest.param(200_000, marks=pytest.mark.soak)])
def test_no_filter_of_many_photos_holds_up_the_searches_of_others(
    photos: int, index_path: Path, settings: Settings, tmp_path: Path
) -> None:
    write_large_shards([tmp_path / "index"], index_path, photos)

    def ask(client: str, **asked: Any) -> float:
        answer = http.post("/search", **asked, headers={"x-forwarded-for": client}, timeout=PATIENCE)
        # A filter that leaves no photo is refused.
        assert answer.status_code in (200, 422) if "params" in asked else answer.status_code == 200, answer.text
        return answer.elapsed.total_seconds()

    def filter_until(over: threading.Event, params: dict[str, Any]) -> None:
        while not over.is_set():
            ask("203.0.113.7", params=params)
            run.times += 1

    what = (
        "Filters of 200,000 photos, four at a time. A search beside them takes at most 3 s, or ten times its time alone"
    )
    with soak(what, *[tmp_path] * (photos < 200_000)) as run, served(settings, index=tmp_path / "index") as server:
        http, sketch = server.http, {"content": encoded(draw_sketch())}
        alone = max(ask("203.0.113.8", **sketch) for _ in range(5))
        for params in WORST_FILTERS:
            over = threading.Event()
            with ThreadPoolExecutor(4) as pool:
                filters = [pool.submit(filter_until, over, params) for _ in range(4)]
                try:
                    beside = max(ask("203.0.113.8", **sketch) for _ in range(5))
                finally:
                    over.set()
            for one in filters:
                one.result()
            assert beside < max(3.0, 10 * alone), params


def test_every_stage_of_a_search_is_timed(http: httpx.Client, sketch: bytes) -> None:
    stages = ("queue", "prepare", "encode", "clusters", "photos", "diffusion", "total")
    before = metrics(http)
    spent = http.post("/search", content=sketch).json()["timings_ms"]
    after = metrics(http)
    grown = {name: after[name] - before[name] for name in after if name.startswith("sbir_search_stage_seconds_")}
    for stage in stages:
        assert grown[f'sbir_search_stage_seconds_count{{stage="{stage}"}}'] == 1
    for stage in stages[1:]:
        seconds = grown[f'sbir_search_stage_seconds_sum{{stage="{stage}"}}']
        # An answer gives thousandths of a millisecond.
        assert seconds == pytest.approx(spent[stage] / 1000, abs=0.6e-6)


def test_requests_are_counted_by_route_and_status(http: httpx.Client, sketch: bytes) -> None:
    before = metrics(http)
    http.post("/search", content=sketch)
    http.post("/search", content=b"text")
    for path in ("/photos/1", "/photos/2", "/photos/1000", "/no/such/path", "/nor/this"):
        http.get(path)
    http.request("PROPFIND", "/photos/1")
    after = metrics(http)

    def counted(verb: str, route: str, status: int) -> float:
        name = f'sbir_http_requests_total{{route="{route}",status="{status}",verb="{verb}"}}'
        return after[name] - before.get(name, 0.0)

    assert counted("POST", "/search", 200) == 1
    assert counted("POST", "/search", 415) == 1
    assert counted("GET", "/photos/{photo_id}", 200) == 2
    assert counted("GET", "/photos/{photo_id}", 404) == 1
    assert counted("GET", "-", 404) == 2
    assert counted("other", "/photos/{photo_id}", 405) == 1
    assert after['sbir_http_request_seconds_count{route="/search"}'] >= 2


def test_the_index_and_the_build_are_named(http: httpx.Client, index: Index) -> None:
    told = metrics(http)
    said = ("ready", "index_refused", "index_photos", "index_clusters", "index_generation")
    names = [f"sbir_{name}" for name in said]
    assert [told[name] for name in names] == [1, 0, PHOTOS, CLUSTERS, 1]
    embedder, generation = index.manifest.embedder.name, index.generation
    assert told[f'sbir_index_info{{embedder="{embedder}",generation="{generation}",model="tiny-random"}}'] == 1
    assert told["sbir_index_created_seconds"] == index.manifest.created.timestamp()
    assert told[f'sbir_build_info{{version="{http.get("/info").json()["version"]}"}}'] == 1


def test_a_port_of_their_own_has_nothing_else_and_the_same_limits(settings: Settings) -> None:
    with served(settings, metrics_port=0, api_key=SecretStr("secret")) as server:
        http, own = server.http, f"http://127.0.0.1:{server.app.state.metrics_port}/metrics"
        assert "sbir_ready" in metrics(http, own)
        assert error(http.get("/metrics", headers={"x-api-key": "secret"})) == (404, "not_found")
        for path in ("/", "/info", "/healthz", "/metrics/"):
            assert error(http.get(own.replace("/metrics", path))) == (404, "not_found")
        assert error(http.get(own, headers={"host": "attacker.example"})) == (400, "bad_host")


SEARCHES = 8


def test_told_to_stop_it_finishes_what_waits(default_settings: Settings, sketch: bytes, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running(
        default_settings,
        log,
        SKETCH_SEARCH_METRICS_PORT="0",
        SKETCH_SEARCH_LOG_FORMAT="json",
        SKETCH_SEARCH_API_KEY="sesame",
    ) as process:
        own, url = address(process), address(process)
        with Remote(url, api_key="sesame", timeout=PATIENCE) as remote, ThreadPoolExecutor(SEARCHES) as pool:
            assert httpx.get(f"{url}/metrics", headers={"x-api-key": "sesame"}, timeout=PATIENCE).status_code == 404

            def search(_: int) -> Results:
                return remote.search(sketch, nprobe="all")

            begun = [pool.submit(search, number) for number in range(SEARCHES)]
            wait_until(lambda: arrived(f"{own}/metrics") >= SEARCHES, "the searches do not arrive")
            process.terminate()
            assert {len(answer.result()) for answer in begun} == {20}
        assert process.wait(PATIENCE) in (0, -15)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    searches = [line for line in lines if line.get("route") == "/search"]
    assert [line["status"] for line in searches] == [200] * SEARCHES
    assert all(line["nprobe"] == "all" and line["generation"] for line in searches)
    assert "sesame" not in log.read_text()
    assert not [line for line in lines if line["level"] in ("warning", "error")]


def arrived(url: str) -> float:
    """Returns the number of searches that are over or have a place in the queue."""
    with httpx.Client(timeout=PATIENCE) as http:
        told = metrics(http, url)
    over = told.get('sbir_http_requests_total{route="/search",status="200",verb="POST"}', 0)
    return over + told["sbir_queue_places_taken"]
