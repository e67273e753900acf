"""The running server against its OpenAPI document: requests that fit it, and requests that do not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import httpx
import hypothesis
import pytest
import schemathesis
from pydantic import SecretStr

from service.commands.dispatch import OPENAPI
from service.settings import Settings
from tests.benchmarks.results import Soak, soak
from tests.service.served import Served, served

schema = schemathesis.openapi.from_path(OPENAPI)
# Seconds for an answer, on a machine that has other things to do.
PATIENCE = 60
# Characters that httpx sends as a query; it refuses more.
LONGEST_QUERY = 65_536
pytestmark = pytest.mark.fuzz
# For each of the paths.
few = hypothesis.settings(max_examples=hypothesis.settings().max_examples // 8)


@pytest.fixture(scope="module")
def closed(settings: Settings) -> Iterator[Served]:
    """A server that wants a key, so that answers to those who lack it are checked as well."""
    with served(settings, api_key=SecretStr("sesame"), allow_build=False) as server:
        yield server


@pytest.fixture(scope="module")
def run() -> Iterator[Soak]:
    """What becomes of the requests to all paths."""
    with soak("Requests generated from the contract, and against it. Each answer is as documented") as made:
        yield made


@schema.parametrize()
@few
def test_every_answer_is_as_documented(case: schemathesis.Case[Any], closed: Served, sketch: bytes, run: Soak) -> None:
    run.times += 1
    key = {"X-API-Key": "sesame"}
    # The document cannot say which bytes are an image, which methods the checkpoint has, which photos there are, how
    # many results the settings allow, and who may build.
    limited = case.path in ("/search", "/explain", "/photos", "/clusters/{cluster_id}", "/build")
    excluded = [schemathesis.checks.positive_data_acceptance] if limited else []
    case.call_and_validate(base_url=closed.url, headers=key, excluded_checks=excluded, timeout=PATIENCE)
    if case.path not in ("/search", "/explain"):
        return
    if len(urlencode(case.query or {}, doseq=True)) > LONGEST_QUERY:
        return
    url = f"{closed.url}{case.path}"
    drawn = httpx.post(url, params=case.query, content=sketch, headers=key, timeout=PATIENCE)
    assert drawn.status_code in (200, 404, 422)
    case.operation.validate_response(drawn)
