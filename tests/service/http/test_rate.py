"""How often one client may ask."""

from __future__ import annotations

from functools import partial

import httpx
import pytest

from service.http.middleware import PICTURES_A_REQUEST, Buckets, network
from service.settings import Settings
from tests.patience import PATIENCE
from tests.service.served import asked, served
from tests.service.talk import error


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, a server that is started now gives no client another request."""
    monkeypatch.setattr("service.http.middleware.Buckets", partial(Buckets, clock=Clock()))


def test_a_minutes_requests_may_come_at_once_and_then_evenly() -> None:
    clock = Clock()
    buckets = Buckets(6, clock=clock)
    assert [buckets.take("a") for _ in range(6)] == [0.0] * 6
    assert buckets.take("a") == pytest.approx(10)
    clock.now += 4
    assert buckets.take("a") == pytest.approx(6)
    clock.now += 6
    assert buckets.take("a") == 0.0
    assert buckets.take("a") == pytest.approx(10)


def test_a_long_silence_earns_no_more_than_a_minute() -> None:
    clock = Clock()
    buckets = Buckets(3, clock=clock)
    buckets.take("a")
    clock.now += 100_000
    assert [buckets.take("a") > 0 for _ in range(5)] == [False, False, False, True, True]


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
