"""Queries of more than anybody has to say."""

from __future__ import annotations

import httpx
import pytest
from starlette.datastructures import QueryParams

from service.http.middleware import MOST_BYTES, MOST_PARAMETERS
from tests.service.talk import error

PATHS = [
    "/thumbnails/1",
    "/clusters/1",
    "/photos",
    "/photos/1",
    "/info",
    "/healthz",
    "/openapi.json",
    "/",
    "/page/main.js",
    "/no/such",
]


@pytest.mark.parametrize("path", PATHS)
def test_a_query_of_many_names_is_refused_before_it_is_read(
    http: httpx.Client, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> None:
        raise AssertionError("the query was read")

    monkeypatch.setattr(QueryParams, "__init__", read)
    for query in (
        "&".join(f"{number:x}" for number in range(MOST_PARAMETERS + 1)),
        "&" * MOST_PARAMETERS,
        "&".join(f"{number:x}" for number in range(12_000)),
        "size=" + "1" * MOST_BYTES,
    ):
        answer = http.get(f"{path}?{query}")
        assert error(answer) == (422, "bad_parameter")
        assert "at most" in answer.json()["error"]["message"]


def test_a_query_at_the_limit_is_read(http: httpx.Client, sketch: bytes) -> None:
    names = [f"{number:x}" for number in range(MOST_PARAMETERS)]
    answer = http.post("/search?" + "&".join(names), content=sketch)
    assert answer.json()["error"]["message"].startswith("There is no parameter '0'")
    assert http.get("/healthz?" + "x" * MOST_BYTES).status_code == 200
    doubled = http.get("/thumbnails/1?" + "&".join([*names[1:], names[-1]]))
    assert doubled.json()["error"]["message"] == f"The parameter {names[-1]} is given 2 times; give it once."
