import itertools
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.settings import Settings
from tests.benchmarks.results import soak
from tests.patience import PATIENCE
from tests.pictures import ODD_FILES, encoded
from tests.service.server_process import address, running
from tests.service.small_gallery import PHOTOS, draw_sketch

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
