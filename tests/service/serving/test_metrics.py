"""What /metrics tells, and whom."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from indexer import Index
from service.settings import Settings
from tests.patience import PATIENCE
from tests.service.busy_server import occupied, wait_until_room_is
from tests.service.served import Served, asked, served
from tests.service.server_process import address, running
from tests.service.small_gallery import CLUSTERS, PHOTOS
from tests.service.talk import connect, error

Sample = tuple[str, frozenset[tuple[str, str]]]


def sample(name: str, **labels: str) -> Sample:
    return name, frozenset(labels.items())


def scraped(http: httpx.Client) -> Mapping[Sample, float]:
    answer = http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        sample(found.name, **found.labels): found.value
        for family in text_string_to_metric_families(answer.text)
        for found in family.samples
    }


def test_every_stage_of_a_search_is_timed(http: httpx.Client, sketch: bytes) -> None:
    stages = ("queue", "prepare", "encode", "clusters", "photos", "diffusion", "total")
    counts = [sample("sbir_search_stage_seconds_count", stage=stage) for stage in stages]
    before = scraped(http)
    spent = http.post("/search", content=sketch).json()["timings_ms"]
    after = scraped(http)
    assert [after[count] - before[count] for count in counts] == [1.0] * len(stages)
    for stage in stages[1:]:
        total = sample("sbir_search_stage_seconds_sum", stage=stage)
        # An answer gives thousandths of a millisecond.
        assert after[total] - before[total] == pytest.approx(spent[stage] / 1000, abs=0.6e-6)


def test_requests_are_counted_by_route_and_status(http: httpx.Client, sketch: bytes) -> None:
    before = scraped(http)
    http.post("/search", content=sketch)
    http.post("/search", content=b"text")
    for path in ("/photos/1", "/photos/2", "/photos/1000", "/no/such/path", "/nor/this"):
        http.get(path)
    http.request("PROPFIND", "/photos/1")
    after = scraped(http)

    def counted(verb: str, route: str, status: int) -> float:
        name = sample("sbir_http_requests_total", verb=verb, route=route, status=str(status))
        return after[name] - before.get(name, 0.0)

    assert counted("POST", "/search", 200) == 1
    assert counted("POST", "/search", 415) == 1
    assert counted("GET", "/photos/{photo_id}", 200) == 2
    assert counted("GET", "/photos/{photo_id}", 404) == 1
    assert counted("GET", "-", 404) == 2
    assert counted("other", "/photos/{photo_id}", 405) == 1
    assert after[sample("sbir_http_request_seconds_count", route="/search")] >= 2


def test_the_index_and_the_build_are_named(http: httpx.Client, index: Index) -> None:
    told = scraped(http)
    assert told[sample("sbir_ready")] == 1
    assert told[sample("sbir_index_refused")] == 0
    assert told[sample("sbir_index_photos")] == PHOTOS
    assert told[sample("sbir_index_clusters")] == CLUSTERS
    assert told[sample("sbir_index_generation")] == 1
    embedder = index.manifest.embedder.name
    name = sample("sbir_index_info", generation=index.generation, model="tiny-random", embedder=embedder)
    assert told[name] == 1
    version = http.get("/info").json()["version"]
    assert told[sample("sbir_build_info", version=version)] == 1


def test_the_queue_can_be_watched(settings: Settings, sketch: bytes) -> None:
    with (
        served(settings, queue=1) as server,
        httpx.Client(base_url=server.url, timeout=PATIENCE) as http,
    ):
        idle = scraped(http)
        assert (idle[sample("sbir_queue_depth")], idle[sample("sbir_queue_limit")]) == (0, 1)
        assert idle[sample("sbir_http_requests_in_flight")] == 1  # this one
        with occupied(server), connect(server) as connection:
            head = f"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(sketch)}\r\n\r\n"
            connection.sendall(head.encode() + sketch)
            wait_until_room_is(server, False)
            busy = scraped(http)
            assert (busy[sample("sbir_queue_depth")], busy[sample("sbir_queue_places_taken")]) == (1, 2)
            assert busy[sample("sbir_http_requests_in_flight")] == 2


def test_a_port_of_their_own_has_nothing_else_and_the_same_limits(settings: Settings, tmp_path: Path) -> None:
    with running(settings, tmp_path / "log", SBIR_METRICS_PORT="0", SBIR_API_KEY="secret") as process:
        metrics, url = address(process), address(process)
        with httpx.Client(timeout=PATIENCE) as http:
            assert "sbir_ready" in http.get(metrics).text
            assert error(http.get(f"{url}/metrics", headers={"x-api-key": "secret"})) == (404, "not_found")
            for path in ("/", "/info", "/healthz", "/metrics/"):
                assert error(http.get(metrics.replace("/metrics", path))) == (404, "not_found")
            assert error(http.get(metrics, headers={"host": "attacker.example"})) == (400, "bad_host")


@pytest.mark.parametrize(
    "accept", ["text/plain;version=x", "application/openmetrics-text; version=99", "text/plain;escaping=?", ";;,=", ""]
)
def test_any_accept_header_is_answered(http: httpx.Client, accept: str) -> None:
    assert http.get("/metrics", headers={"accept": accept}).headers["content-type"].startswith("text/plain; version=")


def test_two_applications_count_apart(server: Served, http: httpx.Client, settings: Settings, sketch: bytes) -> None:
    name = sample("sbir_search_stage_seconds_count", stage="total")
    http.post("/search", content=sketch)
    with served(settings) as other, httpx.Client(base_url=other.url, timeout=PATIENCE) as others:
        assert scraped(others)[name] == 0
        assert scraped(http)[name] >= 1


def test_a_server_that_is_not_ready_says_so(settings: Settings, tmp_path: object) -> None:
    missing = settings.model_copy(update={"index": settings.index / "none" if settings.index else None})
    with asked(missing) as http:
        told = scraped(http)
        assert told[sample("sbir_ready")] == 0
        assert sample("sbir_index_photos") not in told
