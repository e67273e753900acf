import re
from collections.abc import Iterator
from itertools import product

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from sketch_search.service.http.app import create_app
from sketch_search.service.http.middleware import PICTURES_A_REQUEST
from sketch_search.service.settings import Settings
from tests.service.served import Served, asked, error, served


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
        ("GET", "/info", 200),
        ("GET", "/photos/1", 200),
        ("GET", "/metrics", 200),
        ("GET", "/openapi.json", 200),
        ("POST", "/search", 422),
        ("GET", "/no/such/path", 404),
        ("GET", "/search", 405),
        ("GET", "/broken", 500),
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
        # The page is what asks for the key.
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
        # Its img elements may show the photos then.
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


def test_a_browser_that_names_the_origin_alone_is_refused_what_other_pages_ask(settings: Settings) -> None:
    refused = ("http://192.168.1.20:9000", "http://192.168.1.20", "https://a.example", "null")
    # A proxy has put its own address into the place of the host.
    proxied = "http://photos.example"
    for allowed, let_in in ((("192.168.1.20", "photos.example"), {proxied}), (("*",), set())):
        with asked(settings, allowed_hosts=allowed) as http:
            for origin in ("http://192.168.1.20:8000", *let_in, *refused):
                answer = http.post("/search", headers={"host": "192.168.1.20:8000", "origin": origin})
                assert answer.status_code == (400 if origin in refused else 422), origin


def test_another_port_of_this_machine_is_another_page_by_whatever_name(http: httpx.Client) -> None:
    for origin in ("http://localhost:9000", "http://localhost", "http://[::1]:9000", "http://127.0.0.1:9000"):
        answer = http.post("/search", headers={"host": "127.0.0.1:8000", "origin": origin})
        assert error(answer) == (400, "bad_request"), origin


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


@pytest.mark.parametrize(("origin", "allowed"), [("https://app.example", 200), ("https://other.example", 400)])
def test_a_listed_page_of_the_internet_may_reach_a_server_at_home(
    settings: Settings, origin: str, allowed: int
) -> None:
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    for path in ("/search", "/explain", "/info"):
        with asked(settings, cors_origins=("https://app.example",)) as http:
            headers = {"origin": origin, "access-control-request-private-network": "true", **asks}
            answer = http.options(path, headers=headers)
        assert answer.status_code == allowed
        assert answer.headers.get("access-control-allow-origin") == (origin if allowed == 200 else None)
        if allowed == 200:
            assert answer.headers["access-control-allow-private-network"] == "true"


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
            # A page of another origin may read why.
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
