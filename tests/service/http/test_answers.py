import re
from collections.abc import Iterator
from functools import partial

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from service.http.app import create_app
from service.http.middleware import PICTURES_A_REQUEST, Buckets, network
from service.settings import Settings
from tests.patience import PATIENCE
from tests.service.served import Served, asked, served
from tests.service.talk import error


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
def test_every_answer_tells_browsers_to_trust_nothing(
    broken: Served, verb: str, path: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    answer = httpx.request(verb, f"{broken.url}{path}", timeout=PATIENCE)
    assert answer.status_code == status
    policy = [rule.strip() for rule in answer.headers["content-security-policy"].split(";")]
    assert policy == [
        "default-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "sandbox",
    ]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["cache-control"] == ("private, no-cache" if path == "/photos/1" else "no-store")
    assert "camera=()" in answer.headers["permissions-policy"]


def test_with_an_api_key_only_those_who_have_it_are_answered(settings: Settings, sketch: bytes) -> None:
    with asked(settings, api_key=SecretStr("schlüssel")) as http:
        assert http.get("/healthz").status_code == 200
        assert http.get("/readyz").status_code == 200
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
    with served(settings, cors_origins=("https://a.example",)) as server:
        answer = httpx.get(f"{server.url}/nowhere", headers=origin, timeout=PATIENCE)
        assert answer.headers["access-control-allow-origin"] == "https://a.example"
        other = httpx.get(f"{server.url}/healthz", headers={"origin": "https://b.example"}, timeout=PATIENCE)
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
    with served(settings, cors_origins=("https://a.example",)) as server:
        for headers in (image, script):
            assert httpx.get(f"{server.url}/thumbnails/1", headers=headers, timeout=PATIENCE).status_code == 200
        answer = httpx.post(f"{server.url}/search", headers=image | {"origin": "https://b.example"}, timeout=PATIENCE)
        assert error(answer) == (400, "bad_request")


def test_a_browser_that_names_the_origin_alone_is_refused_what_other_pages_ask(settings: Settings) -> None:
    refused = ("http://192.168.1.20:9000", "http://192.168.1.20", "https://a.example", "null")
    # A proxy has put its own address into the place of the host.
    proxied = "http://photos.example"
    for allowed, let_in in ((("192.168.1.20", "photos.example"), {proxied}), (("*",), set())):
        with asked(settings, allowed_hosts=allowed) as http:
            for origin in ("http://192.168.1.20:8000", *let_in, *refused):
                answer = http.post("/search", headers={"host": "192.168.1.20:8000", "origin": origin})
                assert answer.status_code == (400 if origin in refused else 422), origin


@pytest.mark.parametrize("path", ["/", "/healthz", "/info", "/photos/1", "/no/such/path"])
def test_only_known_hosts_are_answered(http: httpx.Client, path: str) -> None:
    for host in (
        "attacker.example",
        "127.0.0.1.attacker.example",
        "localhost.attacker.example:8000",
        "attacker.example.",
        "a b",
        ".",
    ):
        assert error(http.get(path, headers={"host": host})) == (400, "bad_host")
    for host in ("localhost", "LocalHost:8000", "[::1]:8000", "127.0.0.1", "localhost.", "localhost.:8000", ""):
        assert http.get(path, headers={"host": host}).status_code == http.get(path).status_code


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


def test_head_of_what_can_only_be_sent_to_is_refused(http: httpx.Client) -> None:
    answer = http.head("/search")
    assert (answer.status_code, answer.content, answer.headers["allow"]) == (405, b"", "POST")
    assert error(http.get("/search")) == (405, "method_not_allowed")
    assert http.post("/photos/1").headers["allow"] == "GET, HEAD"


def test_hosts_can_be_named(settings: Settings) -> None:
    with served(settings, allowed_hosts=("photos.example.", "*.local")) as server:
        for host, status in [("photos.example", 200), ("a.local:80", 200), ("localhost", 400), ("b.example", 400)]:
            assert httpx.get(f"{server.url}/healthz", headers={"host": host}, timeout=PATIENCE).status_code == status


def test_a_failure_inside_says_only_its_request_id(broken: Served, caplog: pytest.LogCaptureFixture) -> None:
    answer = httpx.get(f"{broken.url}/broken", timeout=PATIENCE)
    assert error(answer) == (500, "internal_error")
    assert "secret" not in answer.text
    assert httpx.get(f"{broken.url}/healthz", timeout=PATIENCE).status_code == 200
    assert answer.headers["x-request-id"] in caplog.text
    assert "a secret from the inside" in caplog.text


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, a server that is started now gives no client another request."""
    monkeypatch.setattr("service.http.middleware.Buckets", partial(Buckets, clock=Clock()))


def test_a_minutes_requests_may_come_at_once_and_then_evenly_and_a_long_silence_earns_no_more() -> None:
    clock = Clock()
    buckets = Buckets(6, clock=clock)
    assert [buckets.take("a") for _ in range(6)] == [0.0] * 6
    assert buckets.take("a") == pytest.approx(10)
    clock.now += 4
    assert buckets.take("a") == pytest.approx(6)
    clock.now += 6
    assert buckets.take("a") == 0.0
    assert buckets.take("a") == pytest.approx(10)
    clock.now += 100_000
    assert [buckets.take("a") > 0 for _ in range(8)] == [False] * 6 + [True] * 2


def test_only_so_many_clients_are_remembered() -> None:
    buckets = Buckets(1, clients=100, clock=Clock())
    buckets.take("busy")
    for number in range(10_000):
        buckets.take(str(number))
        assert buckets.take("busy") > 0
    assert len(buckets) == 100


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("testclient", "x" * 60_000, True),
        ("testclient", "::1", False),
    ],
)
def test_an_ipv6_client_is_its_network(one: str, other: str, same: bool) -> None:
    assert (network(one) == network(other)) is same


@pytest.mark.usefixtures("clock_stands_still")
def test_who_asks_too_often_is_told_when_to_come_back(settings: Settings, sketch: bytes) -> None:
    with asked(settings, rate_limit=3, cors_origins=("https://a.example",)) as http:
        assert [http.get(path).status_code for path in ("/", "/info")] == [200, 200]
        assert http.post("/search", content=sketch).status_code == 200
        for _ in range(3):
            refused = http.post("/search", content=sketch, headers={"origin": "https://a.example"})
            assert error(refused) == (429, "rate_limited")
            assert 1 <= int(refused.headers["retry-after"]) <= 20
            # A page of another origin may read why.
            assert refused.headers["access-control-allow-origin"] == "https://a.example"
        assert http.get("/healthz").status_code == 200
        assert http.get("/readyz").status_code == 200
        assert {http.get(path).status_code for path in ("/page/main.js", "/page/styles/base.css")} == {200}


@pytest.mark.usefixtures("clock_stands_still")
def test_pictures_have_a_limit_of_their_own(settings: Settings) -> None:
    with asked(settings, rate_limit=1) as http:
        assert [http.get("/info").status_code for _ in range(2)] == [200, 429]
        # More than a page of results shows, while nothing else is answered any more.
        assert {http.get("/thumbnails/1").status_code for _ in range(PICTURES_A_REQUEST)} == {200}
        assert error(http.get("/thumbnails/1")) == (429, "rate_limited")
        assert http.get("/healthz").status_code == 200


@pytest.mark.usefixtures("clock_stands_still")
def test_clients_behind_a_proxy_are_told_apart(settings: Settings) -> None:
    with served(settings, rate_limit=1) as server:
        asked = [("203.0.113.7", 200), ("203.0.113.7", 429), ("203.0.113.8", 200), ("203.0.113.8", 429)]
        for client, status in asked:
            answer = httpx.get(f"{server.url}/info", headers={"x-forwarded-for": client}, timeout=PATIENCE)
            assert answer.status_code == status
