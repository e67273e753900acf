"""The server as a program of its own: what it prints, logs, and does when it is told to stop."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from service.client import Client
from service.commands import main
from service.schemas.search import SearchResponse
from service.settings import Settings
from tests.patience import PATIENCE, wait_until
from tests.service.server_process import address, running

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
        f"sketch-search: cannot listen on 127.0.0.1, port {port}: Address already in use; "
        "name another with SBIR_METRICS_PORT\n"
    )
