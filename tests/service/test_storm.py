from __future__ import annotations

import itertools
import os
import random
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from indexer import Request, build, verify
from model import Matcher
from service.settings import Settings
from tests.benchmarks.results import SOAKS, soak
from tests.indexer.galleries import catalog, save_photos
from tests.patience import PATIENCE
from tests.pictures import ODD_FILES, encoded
from tests.programs import started_python
from tests.service.served import served
from tests.service.server_process import address, running
from tests.service.small_gallery import PHOTOS, draw_sketch

STORM = (
    "Searches with likes while photos come and go, a build watches them, and two programs build, remove "
    "and verify, every third time until they are killed. Each is answered, and the index is whole"
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that are forked and killed")
@pytest.mark.parametrize("changes", [5, pytest.param(150, marks=pytest.mark.soak)])
def test_an_index_that_is_changed_by_many_at_once_answers_and_stays_whole(
    changes: int, settings: Settings, matcher: Matcher, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos, index = save_photos(tmp_path / "photos", 30), tmp_path / "index"
    build(index, Request([photos], embedder="ret"), matcher)
    place, weights = (str(photos), str(index)), str(settings.weights)
    watching = ("build", place[0], "--index", place[1], "--weights", weights, "--watch", "--interval", "0.2")
    told: Counter[object] = Counter()
    with soak(STORM, tmp_path if changes < 150 else SOAKS) as run:
        with ExitStack() as stack:
            logs = [stack.enter_context((tmp_path / name).open("w")) for name in ("watching", "one", "two")]
            server = stack.enter_context(served(settings.model_copy(update={"index": index})))
            http = stack.enter_context(httpx.Client(base_url=server.url, timeout=PATIENCE))
            stack.enter_context(started_python("-m", "indexer", *watching, errors=logs[0]))
            storm = [
                stack.enter_context(
                    started_python(
                        "-m", "tests.indexer.upheaval", *place, weights, str(seed), str(changes), errors=logs[seed]
                    )
                )
                for seed in (1, 2)
            ]
            while any(program.poll() is None for program in storm):
                visit(http, told)
        run.times = told.total()
        run.failed = run.times - told[200] - told[404] - told["broken off"]
        assert told.keys() <= {200, 404, "broken off"}, told
        assert [record for record in caplog.records if record.exc_info] == []
        assert ((tmp_path / "one").read_text(), (tmp_path / "two").read_text()) == ("", "")
        assert {
            line for line in (tmp_path / "watching").read_text().splitlines() if "another build" not in line
        } == set()
        # Removed photos are shown again. Then the index has what an undisturbed build finds.
        build(index, Request(added=[photos]), matcher)
        assert verify(index) == []
        build(tmp_path / "undisturbed", Request([photos], embedder="ret"), matcher)
        assert statuses(index) == statuses(tmp_path / "undisturbed")


def visit(http: httpx.Client, told: Counter[object]) -> None:
    """Search, and look at what was found with the likes of it; count the answers."""
    liked = [1]
    for _ in range(4):
        sketch = encoded(draw_sketch(random.randrange(3)))
        found = http.post("/search", content=sketch, params={"like": liked, "k": 50})
        told[found.status_code] += 1
        # After a search whose likes have gone there are none.
        liked = [result["id"] for result in found.json().get("results", ())][:5]
        for photo in liked:
            try:
                told[http.get(f"/photos/{photo}").status_code] += 1
            except httpx.RemoteProtocolError:
                told["broken off"] += 1  # it has changed while it was sent
            told[http.get(f"/thumbnails/{photo}").status_code] += 1


def statuses(index: Path) -> dict[str, str]:
    return {path: status for path, (_, status, *_) in catalog(index).items() if status != "gone"}


# The sentence that the soak writes down.
SOAKED = "Requests of every kind in a row, with odd and damaged files among them. Each is answered as it should be"

# Far below what the uploads, pictures or answers of so many requests would take if they were kept, above what an
# allocator keeps for itself.
GROWTH = 8 * 1024 * 1024


class Visitors:
    """Requests of every kind, in turn; what they are answered is checked against the first time."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._sketches = [encoded(draw_sketch(seed).resize((512, 512))) for seed in range(4)]
        # Only odd files are used that take less than a second each.
        self._odd = itertools.cycle(odd for odd in ODD_FILES if len(odd.data) < 200_000 and odd.name != "very long.png")
        self._first: dict[str, Any] = {}
        self.made = 0

    def come(self, requests: int) -> None:
        until = self.made + requests
        while self.made < until:
            turn = self.made
            which = turn % len(self._sketches)
            self._same(f"sketch {which}", self._http.post("/search", content=self._sketches[which]), 200)
            for odd in itertools.islice(self._odd, 2):
                self._same(odd.name, self._http.post("/search", content=odd.data), odd.as_sketch)
            self._same("a form", self._http.post("/search", files={"file": self._sketches[0]}), 200)
            photo = 1 + turn % PHOTOS
            self._same(f"thumbnail {photo}", self._http.get(f"/thumbnails/{photo}", params={"size": 64}), 200)
            self._same(f"photo {photo}", self._http.get(f"/photos/{photo}"), 200)
            self._same("too many bytes", self._http.post("/search", content=bytes(600_000)), 413)
            self._same("nothing", self._http.get(f"/photos/{1000 + turn}"), 404)
            self._same("unknown", self._http.post("/search", params={f"n{turn}": "1"}), 422)

    def _same(self, name: str, answer: httpx.Response, status: int) -> None:
        self.made += 1
        assert answer.status_code == status, answer.text
        if status != 200:
            return
        shown = answer.json()["results"] if "json" in answer.headers["content-type"] else answer.content
        assert self._first.setdefault(name, shown) == shown


def resident(http: httpx.Client) -> float:
    told = http.get("/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in told if line.startswith("process_resident_memory_bytes "))


@pytest.mark.soak
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc")
def test_ten_thousand_requests_leave_memory_flat(settings: Settings, tmp_path: Path) -> None:
    with (
        soak(SOAKED) as run,
        running(settings, tmp_path / "log", SBIR_MAX_UPLOAD_BYTES="500000") as process,
        httpx.Client(base_url=address(process), timeout=PATIENCE) as http,
    ):
        visitors = Visitors(http)
        visitors.come(1000)
        before = resident(http)
        visitors.come(10_000)
        grown = resident(http) - before
        run.times, run.grown_mib = visitors.made, grown / 2**20
        assert grown < GROWTH
