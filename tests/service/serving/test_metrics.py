"""The route /metrics tells counts to those who may read them; the server runs as a program, and stops when told to."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from sketch_search import Remote, Results
from sketch_search.indexer import Index
from sketch_search.service.settings import Settings
from tests.programs import PATIENCE, wait_until
from tests.service.served import address, error, metrics, running, served
from tests.service.small_gallery import CLUSTERS, PHOTOS


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
        default_settings, log, SBIR_METRICS_PORT="0", SBIR_LOG_FORMAT="json", SBIR_API_KEY="sesame"
    ) as process:
        own, url = address(process), address(process)
        # Metrics need no key on a port of their own, and are not on the main one.
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
