"""The HTTP API over shards: the contract is that of one index, and a shard that does not answer is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from indexer import Index
from model import Matcher
from service.settings import Settings
from tests.benchmarks.scale import number
from tests.benchmarks.sharded import Plan, compare, in_turns
from tests.patience import wait_until
from tests.service.served import Served
from tests.service.sharding.served_here import Sharded, sharded
from tests.service.small_gallery import PHOTOS


@pytest.fixture(scope="module")
def running(settings: Settings, index: Index, matcher: Matcher) -> Iterator[Sharded]:
    with sharded(settings, index, matcher, [0, 1, 2, 1] * 5 + [0, 1, 2]) as server:
        yield server


@pytest.fixture
def many(running: Sharded) -> Iterator[Sharded]:
    running.answers(3)
    yield running
    for link in running.links:
        link.broken = False


def found(http: httpx.Client, sketch: bytes, **asked: Any) -> dict[str, Any]:
    answer = http.post("/search", content=sketch, params=asked)
    assert answer.status_code == 200, answer.text
    parsed: dict[str, Any] = answer.json()
    return parsed


def test_a_search_is_answered_as_by_one_index(many: Sharded, http: httpx.Client, sketch: bytes) -> None:
    for asked in ({"k": PHOTOS}, {"k": 5, "rerank": 6}, {"like": 3, "k": 4}, {"view": "kinds"}):
        one, together = found(http, sketch, **asked), found(many.http, sketch, **asked)
        assert [hit["id"] for hit in together["results"]] == [hit["id"] for hit in one["results"]]
        assert [(hit["paths"], hit["thumbnail_url"]) for hit in together["results"]] == [
            (hit["paths"], hit["thumbnail_url"]) for hit in one["results"]
        ]
        assert (together["complete"], one["complete"]) == (True, True)
        assert set(together) == set(one)


def test_photos_clusters_and_explanations_come_from_the_shards(
    many: Sharded, http: httpx.Client, sketch: bytes
) -> None:
    for path in ("/photos/5", "/thumbnails/5?size=32", "/photos?id=5&id=9&id=2"):
        # As through a proxy, since where files lie is told of one index only.
        one, together = http.get(path, headers={"via": "1.1 proxy"}), many.http.get(path)
        assert (together.status_code, together.content) == (200, one.content)
        assert together.headers.get("etag") == one.headers.get("etag")
    shown: list[int] = []
    clusters = many.info()["index"]["clusters"]
    for cluster in range(clusters):
        shown += [photo["id"] for photo in many.http.get(f"/clusters/{cluster}", params={"k": PHOTOS}).json()["photos"]]
    assert (len(shown), len(set(shown))) == (PHOTOS, PHOTOS)
    assert many.http.get(f"/clusters/{clusters}").status_code == 404
    assert many.http.get("/photos/999").status_code == 404
    one, together = (client.post("/explain?photo=5&nearest=4", content=sketch).json() for client in (http, many.http))
    assert together["photos"][0]["ret_rank"] == one["photos"][0]["ret_rank"]
    assert [near["id"] for near in together["nearest"]] == [near["id"] for near in one["nearest"]]


def test_what_shards_cannot_do_together_is_refused(many: Sharded, sketch: bytes) -> None:
    answer = many.http.post("/explain?photo=5&rebuild=gallery", content=sketch)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "bad_parameter")
    assert "of one index only" in answer.json()["error"]["message"]


def test_a_shard_that_does_not_answer_is_left_out_and_told_and_comes_back(many: Sharded, sketch: bytes) -> None:
    whole = found(many.http, sketch, k=PHOTOS)
    many.links[1].broken = True
    part = found(many.http, sketch, k=PHOTOS)
    assert (part["complete"], part["missing_shards"]) == (False, ["shard-1"])
    lost = set(many.links[1]._shard.index.ids.tolist())
    assert [hit["id"] for hit in part["results"]] == [hit["id"] for hit in whole["results"] if hit["id"] not in lost]
    many.answers(2)
    assert many.http.get("/readyz").json() == {"status": "ready", "missing_shards": ["shard-1"]}
    assert 'sbir_shard_up{shard="shard-1"} 0.0' in many.http.get("/metrics").text
    assert 'sbir_shard_up{shard="shard-0"} 1.0' in many.http.get("/metrics").text
    somewhere = next(iter(lost))
    for path in (f"/photos/{somewhere}", f"/photos?id={somewhere}", f"/thumbnails/{somewhere}"):
        answer = many.http.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
        assert "shard-1" in answer.json()["error"]["message"]
    assert many.http.post("/explain?photo=5", content=sketch).status_code == 503
    assert many.http.post("/search", content=sketch, params={"like": somewhere}).status_code == 503
    many.links[1].broken = False
    many.answers(3)
    assert found(many.http, sketch, k=PHOTOS)["results"] == whole["results"]
    assert many.http.get("/readyz").json() == {"status": "ready"}
    assert 'sbir_shard_up{shard="shard-1"} 1.0' in many.http.get("/metrics").text
    assert "sbir_searches_incomplete_total 1.0" in many.http.get("/metrics").text


def test_without_any_shard_the_service_is_not_ready(many: Sharded, sketch: bytes) -> None:
    for link in many.links:
        link.broken = True
    answer = many.http.post("/search", content=sketch)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
    many.answers(0)
    assert many.http.get("/readyz").status_code == 503
    assert many.info()["ready"] is False
    for link in many.links:
        link.broken = False
    wait_until(lambda: many.http.get("/readyz").status_code == 200, "no shard came back")


def test_one_index_says_that_it_is_complete_and_has_no_shards(http: httpx.Client, sketch: bytes) -> None:
    assert found(http, sketch)["complete"] is True
    assert "missing_shards" not in found(http, sketch)
    assert "shards" not in http.get("/info").json()
    assert "sbir_shard_up" not in http.get("/metrics").text


def test_searches_of_shards_are_timed_beside_those_of_one_index(many: Sharded, server: Served, sketch: bytes) -> None:
    plan = Plan(photos=PHOTOS, sketches=2, queries=3, seconds=0.1, turns=1)
    rows, difference = compare({"one": server.url, "many": many.served.url}, [sketch, sketch], plan)
    assert difference < 1e-3
    for row in rows:
        assert number(row, "p95 (ms)") >= number(row, "a query alone (ms)") > number(row, "all stages (ms)") > 0
        assert number(row, "answered a second") > 0
    many.links[1].broken = True
    with pytest.raises(RuntimeError, match="has answered without shard-1"):
        in_turns([server.url, many.served.url], [sketch], 1)
