"""One index that a server, a watching build and two programs full of other commands use at once."""

from __future__ import annotations

import os
import random
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from indexer import add, build, verify
from model import Matcher
from service.settings import Settings
from tests.benchmarks.results import SOAKS, soak
from tests.indexer.galleries import catalog, save_photos
from tests.patience import PATIENCE
from tests.pictures import encoded
from tests.programs import started_python
from tests.service.served import served
from tests.service.small_gallery import draw_sketch

STORM = (
    "Searches with likes while photos come and go, a build watches them, and two programs build, remove, compact, "
    "repair and verify, every third time until they are killed. Each is answered, and the index is whole"
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that are forked and killed")
@pytest.mark.parametrize("changes", [5, pytest.param(150, marks=pytest.mark.soak)])
def test_an_index_that_is_changed_by_many_at_once_answers_and_stays_whole(
    changes: int, settings: Settings, matcher: Matcher, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos, index = save_photos(tmp_path / "photos", 30), tmp_path / "index"
    build([photos], index, matcher, embedder="ret")
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
        # What was removed is shown again: then it is what a build that nobody disturbs finds.
        add([photos], index, matcher)
        assert verify(index) == []
        build([photos], tmp_path / "undisturbed", matcher, embedder="ret")
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
    """Whether each file that is there is in the index."""
    return {path: status for path, (_, status, *_) in catalog(index).items() if status != "gone"}
