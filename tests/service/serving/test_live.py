import logging
import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import pytest

from sketch_search.indexer import BuildRequest, build
from sketch_search.model import Matcher
from sketch_search.service.settings import Settings
from tests.benchmarks.results import Soak, soak
from tests.pictures import encoded
from tests.programs import PATIENCE, wait_until
from tests.service.busy_server import occupied
from tests.service.served import Served, served
from tests.service.small_gallery import draw_photo, draw_sketch

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
def server(growing: Growing, settings: Settings) -> Iterator[Served]:
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


def test_generations_swap_under_load_without_a_failed_request(growing: Growing, server: Served) -> None:
    swap_under_load(growing, server, Soak(), builds=2)


def test_a_build_runs_until_photos_are_found(growing: Growing, server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def state() -> tuple[bool, int]:
        info = server.http.get("/info").json()
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
def test_many_generations_swap_under_load_without_a_failed_request(growing: Growing, server: Served) -> None:
    with soak("Requests answered while another build went live 60 times") as run:
        swap_under_load(growing, server, run, builds=60)


def swap_under_load(growing: Growing, server: Served, run: Soak, builds: int) -> None:
    """``run``: gets how many requests were made, and how many of them failed."""
    photos = {growing.generation: growing.photos}
    with load(server.http) as told:
        for _ in range(builds):
            name = growing.grow()
            photos[name] = growing.photos
            wait_for_generation(server.http, name)
        searched = f"{name} {growing.photos}"
        wait_until(lambda: told[searched], "the last generation is not searched")
    assert server.context.live.swaps == builds
    # Every answer is of one generation, whole.
    found = {key: count for key, count in told.items() if key.startswith("g")}
    assert set(found) <= {f"{name} {count}" for name, count in photos.items()}
    assert len(found) > 1
    answers = {key: count for key, count in told.items() if key not in found}
    run.times = sum(answers.values())
    run.failed = sum(count for key, count in answers.items() if key not in GOOD)
    assert answers.keys() == GOOD


def test_a_search_in_flight_is_answered_by_its_own_generation(growing: Growing, server: Served) -> None:
    before = growing.generation
    with ThreadPoolExecutor(1) as pool:
        with occupied(server):
            waiting = pool.submit(server.http.post, "/search", content=encoded(draw_sketch()))
            wait_until(lambda: server.context.worker.held == 2, "the search does not wait")
            for _ in range(2):
                wait_for_generation(server.http, growing.grow())
            assert files_open_below(growing.index / before)
        found = waiting.result().json()
        assert (found["generation"], found["candidates"]) == (before, 6)
        wait_until(lambda: not files_open_below(growing.index / before), f"{before} is still open")


@pytest.mark.parametrize("damage", ["a short file", "no numbers"])
def test_a_damaged_generation_is_refused_and_the_old_one_stays(
    growing: Growing, server: Served, damage: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sketch_search.service.serving.live.RETRY_SECONDS", 0.0)
    caplog.set_level(logging.INFO, "sketch_search")
    sketch = encoded(draw_sketch())
    http = server.http
    before = growing.generation
    results = http.post("/search", content=sketch).json()["results"]
    growing.grow_damaged(damage)
    for _ in range(3):
        server.context.live.refresh()
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
    growing: Growing, server: Served, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = threading.Semaphore(0)

    def fails() -> bool:
        looked.release()
        raise RuntimeError("unforeseen")

    http = server.http
    with monkeypatch.context() as patch:
        # Not for all servers of this process.
        patch.setattr(server.context.live.source, "refresh", fails)
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
