import fcntl
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator
from http import cookies
from itertools import dropwhile, product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from sketch_search.service.http.app import create_app
from sketch_search.service.http.middleware import PICTURES_A_REQUEST, JsonLines, TextLines
from sketch_search.service.settings import Settings
from tests.programs import PATIENCE, started_python, wait_until
from tests.service.served import Served, address, asked, check_is_stranger, error, running, served


@pytest.fixture(scope="module")
def broken(settings: Settings) -> Iterator[Served]:
    app: FastAPI = create_app(settings)

    @app.get("/broken")
    def fail() -> None:
        raise RuntimeError("a secret from the inside")

    with served(settings, app) as server:
        yield server


def test_every_answer_carries_a_request_id(http: httpx.Client) -> None:
    assert http.get("/healthz", headers={"x-request-id": "abc-1.2_3"}).headers["x-request-id"] == "abc-1.2_3"
    for bad in ("a b", "x" * 65, "<script>", "a;b"):
        given = http.get("/healthz", headers={"x-request-id": bad}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", given)
    assert error(http.get("/nowhere", headers={"x-request-id": "mine"})) == (404, "not_found")


@pytest.mark.parametrize(
    ("verb", "path", "status"),
    [
        *(("GET", path, 200) for path in ("/info", "/photos/1", "/metrics", "/openapi.json")),
        *(("POST", "/search", 422), ("GET", "/no/such/path", 404), ("GET", "/search", 405), ("GET", "/broken", 500)),
    ],
)
def test_every_answer_has_headers_against_trust(broken: Served, verb: str, path: str, status: int) -> None:
    answer = broken.http.request(verb, path)
    assert answer.status_code == status
    told = {
        "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "sandbox",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "permissions-policy": "camera=(), geolocation=(), microphone=()",
        "cross-origin-resource-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
        "cache-control": "private, no-cache" if path == "/photos/1" else "no-store",
    }
    assert {name: answer.headers[name] for name in told} == told


def test_with_an_api_key_only_clients_with_it_are_answered(settings: Settings, sketch: bytes) -> None:
    with asked(settings, api_key=SecretStr("schlüssel")) as http:
        for path in ("/healthz", "/readyz", "/", "/page/main.js"):
            assert http.get(path).status_code == 200
        for path in ("/info", "/metrics", "/photos?id=1", "/photos/1", "/thumbnails/1", "/clusters/1", "/photos/1000"):
            answer = http.get(path)
            assert error(answer) == (401, "unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"
            assert error(http.get(path, headers={"x-api-key": "wrong"})) == (401, "unauthorized")
            assert error(http.get(path, headers={"authorization": "Bearer wrong"})) == (401, "unauthorized")
        assert error(http.post("/search", content=sketch, params={"k": "0"})) == (401, "unauthorized")
        for header in ({"x-api-key": "schlüssel"}, {"authorization": "Bearer schlüssel"}):
            sent = httpx.Headers(header, encoding="utf-8")
            assert http.get("/photos/1", headers=sent).status_code == 200
            assert http.post("/search", content=sketch, headers=sent).status_code == 200


def test_other_web_origins_are_let_in_only_when_named(settings: Settings, http: httpx.Client) -> None:
    origin = {"origin": "https://a.example"}
    assert "access-control-allow-origin" not in http.get("/healthz", headers=origin).headers
    with asked(settings, cors_origins=("https://a.example",)) as named:
        answer = named.get("/nowhere", headers=origin)
        assert answer.headers["access-control-allow-origin"] == "https://a.example"
        other = named.get("/healthz", headers={"origin": "https://b.example"})
        assert "access-control-allow-origin" not in other.headers
        assert answer.headers["cross-origin-resource-policy"] == "cross-origin"


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_pages_do_not_even_ask(settings: Settings, http: httpx.Client, sketch: bytes, site: str) -> None:
    mine = {"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}
    form, image, link = (
        {"sec-fetch-site": site, "sec-fetch-mode": mode} for mode in ("navigate", "no-cors", "navigate")
    )
    script, frame = image | {"origin": "https://a.example"}, link | {"sec-fetch-dest": "iframe"}
    for verb, path, headers in (
        ("POST", "/search", form),
        ("GET", "/thumbnails/1", frame),
        ("GET", "/thumbnails/1", image),
        ("POST", "/search", script),
    ):
        assert error(http.request(verb, path, content=sketch, headers=headers)) == (400, "bad_request")
    assert http.post("/search", content=sketch, headers=mine).status_code == 200
    assert http.get("/photos/1", headers=link).status_code == 200
    with asked(settings, cors_origins=("https://a.example",)) as named:
        for headers in (image, script):
            assert named.get("/thumbnails/1", headers=headers).status_code == 200
        assert error(named.post("/search", headers=image | {"origin": "https://b.example"})) == (400, "bad_request")
        for headers in (script, {"origin": "https://a.example"}):
            assert error(named.post("/build", headers=headers)) == (400, "bad_request"), "it may not change anything"


def test_a_browser_that_names_the_origin_alone_is_refused_what_other_pages_ask(settings: Settings) -> None:
    refused = ("http://192.168.1.20:9000", "http://192.168.1.20", "https://a.example", "null")
    # A proxy has put its own address into the place of the host.
    proxied = "http://photos.example"
    for allowed, let_in in ((("192.168.1.20", "photos.example"), {proxied}), (("*",), set())):
        with asked(settings, allowed_hosts=allowed) as http:
            for origin in ("http://192.168.1.20:8000", *let_in, *refused):
                answer = http.post("/search", headers={"host": "192.168.1.20:8000", "origin": origin})
                assert answer.status_code == (400 if origin in refused else 422), origin


STRANGE_HOSTS = ("attacker.example", "127.0.0.1.attacker.example", "localhost.attacker.example:8000", "a b", ".")
OWN_HOSTS = ("localhost", "LocalHost:8000", "[::1]:8000", "127.0.0.1", "localhost.", "localhost.:8000", "")


def test_only_known_hosts_are_answered(settings: Settings, http: httpx.Client) -> None:
    for path in ("/", "/metrics", "/info", "/photos/1", "/no/such/path"):
        for host in STRANGE_HOSTS:
            assert error(http.get(path, headers={"host": host})) == (400, "bad_host")
        for host in OWN_HOSTS:
            assert http.get(path, headers={"host": host}).status_code == http.get(path).status_code
    with asked(settings, allowed_hosts=("photos.example.", "*.local")) as named:
        for host, status in [("photos.example", 200), ("a.local:80", 200), ("localhost", 400), ("b.example", 400)]:
            assert named.get("/info", headers={"host": host}).status_code == status
        # As kubelets and load balancers ask, by the address of a pod.
        for host, path in product((*STRANGE_HOSTS, "10.42.0.17:8000", "[fd00::17]:8000"), ("/healthz", "/readyz")):
            assert named.get(path, headers={"host": host}).status_code == 200


def test_a_listed_page_may_reach_a_server_at_home(settings: Settings) -> None:
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    asks["access-control-request-private-network"] = "true"
    with asked(settings, cors_origins=("https://app.example",)) as http:
        for path in ("/search", "/explain", "/info"):
            refused = http.options(path, headers={"origin": "https://other.example", **asks})
            assert (refused.status_code, "access-control-allow-origin" in refused.headers) == (400, False)
            allowed = http.options(path, headers={"origin": "https://app.example", **asks})
            assert allowed.status_code == 200
            assert allowed.headers["access-control-allow-origin"] == "https://app.example"
            assert allowed.headers["access-control-allow-private-network"] == "true"


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/page/main.js", "/healthz", "/readyz", "/info", "/metrics", "/openapi.json"),
        "/photos?id=1",
        *("/photos/1", "/thumbnails/1", "/clusters/1", "/photos/1000", "/thumbnails/1?size=0", "/no/such/path"),
    ],
)
def test_head_answers_like_get_without_the_body(http: httpx.Client, path: str) -> None:
    got, asked = http.get(path), http.head(path)
    assert asked.content == b""
    assert asked.status_code == got.status_code
    # The headers that differ between requests: the time, the id, and the length, if measurements change it.
    passing = {"date", "x-request-id"} | ({"content-length"} if path == "/metrics" else set())
    assert {**asked.headers, **dict.fromkeys(passing)} == {**got.headers, **dict.fromkeys(passing)}


def test_a_failure_inside_says_only_its_request_id(broken: Served, caplog: pytest.LogCaptureFixture) -> None:
    answer = broken.http.get("/broken")
    assert error(answer) == (500, "internal_error")
    assert "secret" not in answer.text
    assert broken.http.get("/healthz").status_code == 200
    assert answer.headers["x-request-id"] in caplog.text
    assert "a secret from the inside" in caplog.text


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that servers which are started now see: however slow the machine is, no client gets a request."""
    now = [1000.0]
    monkeypatch.setattr("sketch_search.service.http.middleware.monotonic", lambda: now[0])
    return now


def test_a_minutes_requests_may_come_at_once_and_no_more(settings: Settings, sketch: bytes, clock: list[float]) -> None:
    with asked(settings, rate_limit=3, cors_origins=("https://a.example",)) as http:
        assert [http.get(path).status_code for path in ("/", "/info")] == [200, 200]
        assert http.post("/search", content=sketch).status_code == 200
        for _ in range(3):
            refused = http.post("/search", content=sketch, headers={"origin": "https://a.example"})
            assert error(refused) == (429, "rate_limited")
            assert int(refused.headers["retry-after"]) == 20
            assert refused.headers["access-control-allow-origin"] == "https://a.example"
        # More of the page's files than it needs, while nothing else is answered any more.
        for path in ("/healthz", "/readyz", "/page/main.js", *["/thumbnails/1"] * (3 * PICTURES_A_REQUEST - 1)):
            assert http.get(path).status_code == 200
        assert error(http.get("/thumbnails/1")) == (429, "rate_limited")
        # Clients behind a proxy are told apart, those with an IPv6 address by their network.
        for client, same, other in (
            ("203.0.113.7", "::ffff:203.0.113.7", "203.0.113.8"),
            ("2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1"),
        ):
            for name, status in [(client, 200)] * 3 + [(same, 429), (other, 200)]:
                assert http.get("/info", headers={"x-forwarded-for": name}).status_code == status
        # After that they may come evenly, and a long silence earns no more.
        for seconds, more in ((14, 0), (6, 1), (100_000, 3)):
            clock[0] += seconds
            assert [http.get("/info").status_code for _ in range(more + 1)] == [200] * more + [429]


def test_neither_this_machine_nor_a_wrong_token_is_enough(server: Served, gallery: Path) -> None:
    name = f"sketch-search-{urlsplit(server.url).port}"
    for wrong in ("", "wrong", server.app.state.token[:-1], "\xff"):
        for header in ({"x-sbir-token": wrong}, {"cookie": f"{name}={wrong}"}):
            with httpx.Client(base_url=server.url, timeout=PATIENCE) as http:
                check_is_stranger(http, gallery, **header)


def test_no_cookie_but_the_servers_own_is_read(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    read = list[str]()

    def noted(value: str) -> str:
        """In the place of what takes the square of a value's length."""
        read.append(value)
        return value

    monkeypatch.setattr(cookies, "_unquote", noted)
    own = f"sketch-search-{urlsplit(server.url).port}"
    quotes = '"' + '\\"' * 20_000 + '"'
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as http:
        for name in ("a", own):
            check_is_stranger(http, Path("/"), cookie=f"{name}={quotes}")
        http.headers["cookie"] = f"a={quotes}; {own}={server.app.state.token};{own}"
        assert http.get("/info").json()["allows"]["build"]
    assert {*read} == {server.app.state.token}


def test_the_token_is_printed_on_a_terminal_or_in_a_file(default_settings: Settings, tmp_path: Path) -> None:
    # In the place of a browser: it notes what it is to open.
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >{tmp_path}/opened.part; mv {tmp_path}/opened.part {tmp_path}/opened\n')
    browser.chmod(0o700)
    # The server is told to end by it; who runs the tests may ignore it, as nohup does.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    variables: dict[str, Any] = {
        "BROWSER": str(browser),
        "SKETCH_SEARCH_LOG_FORMAT": "json",
        "SKETCH_SEARCH_METRICS_PORT": "0",
    }
    with running(default_settings, tmp_path / "log", "--open", **variables) as process:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline())["message"] for _ in range(3)]
        told = "open this file for the page with the token; only you can read it:"
        assert [line.rpartition(" ")[0] for line in lines] == ["metrics at", "sketch-search at", told]
        page = Path(lines[2].split()[-1])
        assert page.stat().st_mode & 0o777 == 0o600
        url = lines[1].split()[-1]
        assert "token" not in url
        wait_until((tmp_path / "opened").exists, "no browser is opened")
        assert (tmp_path / "opened").read_text() == f"{page.as_uri()}\n"
        address = page.read_text().partition("url=")[2].partition('"')[0]
        with httpx.Client(timeout=PATIENCE, follow_redirects=True) as http:
            http.get(address)
            assert http.get(f"{url}/info").json()["allows"]["build"]
        # As a terminal sends it that is closed.
        process.send_signal(signal.SIGHUP)
        process.wait(PATIENCE)
        assert not page.exists()
    with running(default_settings, tmp_path / "log", SKETCH_SEARCH_ALLOW_BUILD="no") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        process.terminate()
        assert "token" not in "".join([*lines, *process.stdout])


def test_a_terminal_shows_the_address_with_the_token(default_settings: Settings, tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    with (
        open(ours, "rb", buffering=0) as shown,
        open(theirs, "wb") as terminal,
        running(default_settings, tmp_path / "log", output=terminal),
    ):
        line = shown.readline()
    assert re.fullmatch(rb"sketch-search at http://127.0.0.1:[0-9]+/\?token=[\w-]{32}\r\n", line)


def test_the_token_in_the_pages_address_becomes_a_cookie_that_no_script_and_no_other_site_has(server: Served) -> None:
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as http:
        answer = http.get(server.page)
        assert (answer.status_code, answer.headers["location"]) == (303, "./")
        name, *attributes = answer.headers["set-cookie"].split("; ")
        assert name == f"sketch-search-{urlsplit(server.url).port}={server.app.state.token}"
        assert {*attributes} == {"HttpOnly", "Path=/", "SameSite=strict"}
        assert answer.headers["cache-control"] == "no-store"
        assert http.get("/info").json()["allows"]["build"]
    refused = httpx.get(server.url, params={"token": "wröng"}, timeout=PATIENCE)
    assert (refused.status_code, "set-cookie" in refused.headers) == (303, False)


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def wait_for_lines(
    server: Served, caplog: pytest.LogCaptureFixture, first: httpx.Response, count: int
) -> list[dict[str, Any]]:
    """Returns the lines in the order of the answers; whoever has an answer may be a little before its line."""

    def lines() -> list[dict[str, Any]]:
        every = [vars(record)["access"] for record in caplog.records if record.name == "sketch_search.access"]
        # The line of the test before may be among them.
        return [*dropwhile(lambda line: line["request_id"] != first.headers["x-request-id"], every)]

    wait_until(lambda: len(lines()) >= count or not server.http.get("/healthz"), "there are too few lines")
    return lines()


def test_requests_are_logged(
    server: Served, http: httpx.Client, logged: pytest.LogCaptureFixture, sketch: bytes
) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        assert http.get(path).status_code == 200
    plain = http.post("/search", content=sketch)
    wait_for_lines(server, logged, plain, 1)
    exact = http.post("/search", content=sketch, params={"nprobe": "all", "method": "ret"})
    wait_for_lines(server, logged, plain, 2)
    http.post("/search", content=b"text")
    http.get("/photos/1000")
    http.get("/no/such%0d%0apath?secret=1")
    http.get("/", headers={"host": "attacker.example"})
    first, second, *refused = wait_for_lines(server, logged, plain, 6)
    assert second["request_id"] == exact.headers["x-request-id"]
    assert [first[name] for name in ("verb", "route", "status", "bytes_in")] == ["POST", "/search", 200, len(sketch)]
    assert first["ms"] > 0
    generation = plain.json()["generation"]
    searches = [[*access.values()][-4:] for access in (first, second)]
    assert searches == [["rn", "good", "default", generation], ["ret", "good", "all", generation]]
    shown = [(access["route"], access["status"], access.get("method")) for access in refused]
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
    variables = {**os.environ, "SKETCH_SEARCH_INDEX": str(default_settings.index), "SKETCH_SEARCH_PORT": "0"}
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
        keys = ({"x-api-key": "sesame"}, {"authorization": "Bearer sesame"}, {"x-api-key": "wr0ng"})
        first, *_ = [server.http.post("/search", content=sketch, headers=key) for key in keys]
        wait_for_lines(server, logged, first, 3)
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
