import fcntl
import json
import logging
import os
import sys

import httpx
import pytest
from pydantic import SecretStr

from sketch_search.service.http.middleware import Access, JsonLines, TextLines
from sketch_search.service.settings import Settings
from tests.programs import PATIENCE, started_python, wait_until
from tests.service.served import Served, address, served


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def wait_for_lines(server: Served, caplog: pytest.LogCaptureFixture, count: int) -> list[Access]:
    """Returns the lines in the order of the answers; whoever has an answer may be a little before its line."""

    def lines() -> list[Access]:
        return [vars(record)["access"] for record in caplog.records if record.name == "sketch_search.access"]

    wait_until(lambda: len(lines()) >= count or not server.http.get("/healthz"), "there are too few lines")
    return lines()


def test_a_request_is_one_line_whatever_becomes_of_it_and_healthy_checks_are_none(
    server: Served, http: httpx.Client, logged: pytest.LogCaptureFixture, sketch: bytes
) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        assert http.get(path).status_code == 200
    plain = http.post("/search", content=sketch)
    wait_for_lines(server, logged, 1)
    exact = http.post("/search", content=sketch, params={"nprobe": "all", "method": "ret"})
    wait_for_lines(server, logged, 2)
    http.post("/search", content=b"text")
    http.get("/photos/1000")
    http.get("/no/such%0d%0apath?secret=1")
    http.get("/", headers={"host": "attacker.example"})
    first, second, *refused = wait_for_lines(server, logged, 6)
    assert first.request_id == plain.headers["x-request-id"]
    assert second.request_id == exact.headers["x-request-id"]
    assert (first.verb, first.route, first.status, first.bytes_in) == ("POST", "/search", 200, len(sketch))
    assert first.ms > 0
    generation = plain.json()["generation"]
    searches = [(access.method, access.quality, access.nprobe, access.generation) for access in (first, second)]
    assert searches == [("rn", "good", "default", generation), ("ret", "good", "all", generation)]
    shown = [(access.route, access.status, access.method) for access in refused]
    assert shown == [("/search", 415, None), ("/photos/{photo_id}", 404, None), ("-", 404, None), ("-", 400, None)]
    # uvicorn logs a request only where somebody listens, which pytest does and the program does not.
    others = ("httpx", "uvicorn.access")
    ours = "\n".join(record.getMessage() for record in logged.records if record.name not in others)
    assert "such" not in ours
    assert "secret" not in ours


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sets the size of a pipe")
def test_a_log_that_nobody_reads_does_not_stop_the_server(default_settings: Settings) -> None:
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    variables = {**os.environ, "SBIR_INDEX": str(default_settings.index), "SBIR_PORT": "0"}
    with (
        open(read, "rb"),
        open(write, "w") as errors,
        started_python("-m", "service", environment=variables, errors=errors) as process,
        httpx.Client(base_url=address(process), timeout=PATIENCE) as http,
    ):
        for _ in range(50):
            assert http.get("/nowhere").status_code == 404


def test_keys_and_images_are_not_logged(settings: Settings, logged: pytest.LogCaptureFixture, sketch: bytes) -> None:
    logged.set_level(logging.DEBUG)
    with served(settings, api_key=SecretStr("sesame")) as server:
        for headers in ({"x-api-key": "sesame"}, {"authorization": "Bearer sesame"}, {"x-api-key": "wr0ng"}):
            server.http.post("/search", content=sketch, headers=headers)
        wait_for_lines(server, logged, 3)
    told = "\n".join(
        formatter.format(record)
        for record in logged.records
        if record.name.startswith(("sketch_search", "uvicorn"))
        for formatter in (TextLines(), JsonLines())
    )
    assert "POST" in told
    for secret in ("sesame", "wr0ng", "PNG", "IHDR"):
        assert secret not in told


def test_no_message_forges_a_line_of_the_log_nor_moves_the_cursor() -> None:
    forged = "\n2026-01-01T00:00:00.000Z INFO all is well\x1b[2J"
    try:
        raise ValueError(f"not{forged}")
    except ValueError:
        failure = logging.LogRecord("", logging.ERROR, __file__, 1, f"searched with a{forged}", None, sys.exc_info())
    first, *trace = TextLines().format(failure).splitlines()
    assert first.endswith(r"searched with a\n2026-01-01T00:00:00.000Z INFO all is well\x1b[2J")
    assert trace[0] == "  Traceback (most recent call last):"
    assert all(line.startswith("  ") and line.isprintable() for line in trace)
    line = JsonLines().format(failure)
    assert line.isprintable()
    told = json.loads(line)
    assert (told["level"], told["message"]) == ("error", f"searched with a{forged}")
    assert told["trace"].startswith("Traceback")
