"""The route /metrics tells counts to those who may read them; the server runs as a program, and stops when told to."""

import json
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from indexer import Index
from service.client import Client
from service.commands import main
from service.schemas.search import SearchResponse
from service.settings import Settings
from tests.patience import PATIENCE, wait_until
from tests.service.busy_server import occupied, wait_until_room_is
from tests.service.served import served
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
    with served(settings, queue=1) as server:
        idle = scraped(server.http)
        assert (idle[sample("sbir_queue_depth")], idle[sample("sbir_queue_limit")]) == (0, 1)
        assert idle[sample("sbir_http_requests_in_flight")] == 1  # this one
        with occupied(server), connect(server) as connection:
            head = f"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(sketch)}\r\n\r\n"
            connection.sendall(head.encode() + sketch)
            wait_until_room_is(server, False)
            busy = scraped(server.http)
            assert (busy[sample("sbir_queue_depth")], busy[sample("sbir_queue_places_taken")]) == (1, 2)
            assert busy[sample("sbir_http_requests_in_flight")] == 2


def test_a_port_of_their_own_has_nothing_else_and_the_same_limits(settings: Settings) -> None:
    with served(settings, metrics_port=0, api_key=SecretStr("secret")) as server:
        http, metrics = server.http, server.metrics_url
        assert "sbir_ready" in http.get(metrics).text
        assert error(http.get("/metrics", headers={"x-api-key": "secret"})) == (404, "not_found")
        for path in ("/", "/info", "/healthz", "/metrics/"):
            assert error(http.get(metrics.replace("/metrics", path))) == (404, "not_found")
        assert error(http.get(metrics, headers={"host": "attacker.example"})) == (400, "bad_host")


SEARCHES = 8


def test_told_to_stop_it_finishes_what_runs_and_what_waits(settings: Settings, sketch: bytes, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running(settings, log, SBIR_METRICS_PORT="0", SBIR_LOG_FORMAT="json", SBIR_API_KEY="sesame") as process:
        metrics, url = address(process), address(process)
        # Metrics need no key on a port of their own, and are not on the main one.
        with Client(url, api_key="sesame", timeout=PATIENCE) as client, ThreadPoolExecutor(SEARCHES) as pool:
            assert client.info().ready
            assert httpx.get(f"{url}/metrics", headers={"x-api-key": "sesame"}, timeout=PATIENCE).status_code == 404

            def search(_: int) -> SearchResponse:
                return client.search(sketch, nprobe="all")

            begun = [pool.submit(search, number) for number in range(SEARCHES)]
            wait_for_searches(metrics)
            process.terminate()
            assert {len(answer.result().results) for answer in begun} == {20}
        assert process.wait(PATIENCE) in (0, -15)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    searches = [line for line in lines if line.get("route") == "/search"]
    assert [line["status"] for line in searches] == [200] * SEARCHES
    assert all(line["nprobe"] == "all" and line["generation"] for line in searches)
    assert "sesame" not in log.read_text()
    assert not [line for line in lines if line["level"] in ("warning", "error")]


def wait_for_searches(metrics: str) -> None:
    """Until all the searches have arrived: those over, and those with a place in the queue."""

    def arrived() -> bool:
        told = httpx.get(metrics, timeout=PATIENCE).text.splitlines()
        values = {name: float(value) for name, value in (line.rsplit(" ", 1) for line in told if line[0] != "#")}
        over = values.get('sbir_http_requests_total{route="/search",status="200",verb="POST"}', 0)
        return over + values["sbir_queue_places_taken"] >= SEARCHES

    wait_until(arrived, "the searches do not arrive")


def test_a_taken_port_for_metrics_is_a_sentence(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("SBIR_METRICS_PORT", str(port))
        assert main(["--port", "0", "--index", str(settings.index), "--weights", str(settings.weights)]) == 2
    assert capsys.readouterr().err == (
        f"error: cannot listen on 127.0.0.1, port {port}: Address already in use; name another with SBIR_METRICS_PORT\n"
    )
