import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sketch_search.service.settings import Settings
from tests.benchmarks.results import soak
from tests.pictures import ODD_FILES, encoded
from tests.programs import PATIENCE
from tests.service.served import address, metrics, running
from tests.service.small_gallery import PHOTOS, draw_sketch

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
        running(settings, tmp_path / "log", SBIR_MAX_UPLOAD_BYTES="500000") as process,
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
