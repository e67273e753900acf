"""The running server against its OpenAPI document: requests that fit it, and requests that do not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import httpx
import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck
from pydantic import SecretStr

from service.commands.openapi import OPENAPI
from service.settings import Settings
from tests.service.served import Served, served
from tests.soak_report import Run, noted

schema = schemathesis.openapi.from_path(OPENAPI)
# Seconds for an answer, on a machine that has other things to do.
PATIENCE = 60
# Characters that httpx sends as a query; it refuses more.
LONGEST_QUERY = 65_536
# The same cases every time; the search for new ones is the soak's.
short = hypothesis.settings(max_examples=12, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
long = hypothesis.settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def closed(settings: Settings) -> Iterator[Served]:
    """A server that wants a key, so that answers to those who lack it are checked as well."""
    with served(settings.model_copy(update={"api_key": SecretStr("sesame")})) as server:
        yield server


@schema.parametrize()
@short
def test_every_answer_is_as_documented(case: schemathesis.Case[Any], closed: Served, sketch: bytes) -> None:
    check(case, closed, sketch)


@pytest.fixture(scope="module")
def soak() -> Iterator[Run]:
    """What becomes of the requests to all paths."""
    with noted("contract") as run:
        yield run


@pytest.mark.soak
@schema.parametrize()
@long
def test_every_answer_is_as_documented_whatever_is_asked(
    case: schemathesis.Case[Any], closed: Served, sketch: bytes, soak: Run
) -> None:
    soak.made += 1
    try:
        check(case, closed, sketch)
    except Exception:
        soak.failed += 1
        raise


def check(case: schemathesis.Case[Any], server: Served, sketch: bytes) -> None:
    """The answer has a documented status, shape and media type; without the key it is 401."""
    key = {"X-API-Key": "sesame"}
    # The document cannot say which bytes are an image, which methods the checkpoint has, which photos there are, and
    # how many results the settings allow.
    limited = case.path in ("/search", "/explain", "/photos", "/clusters/{cluster_id}")
    excluded = [schemathesis.checks.positive_data_acceptance] if limited else []
    case.call_and_validate(base_url=server.url, headers=key, excluded_checks=excluded, timeout=PATIENCE)
    if case.path not in ("/search", "/explain"):
        return
    if len(urlencode(case.query or {}, doseq=True)) > LONGEST_QUERY:
        return
    url = f"{server.url}{case.path}"
    drawn = httpx.post(url, params=case.query, content=sketch, headers=key, timeout=PATIENCE)
    assert drawn.status_code in (200, 404, 422)
    case.operation.validate_response(drawn)
