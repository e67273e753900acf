"""The pinned OpenAPI document, and that it tells the truth of the running server, whatever is asked."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import hypothesis
import pytest
import schemathesis
from pydantic import SecretStr

from sketch_search.service import http
from sketch_search.service.commands import main
from sketch_search.service.search.plan import GROUPED
from sketch_search.service.search.searcher import MORE
from sketch_search.service.settings import Settings
from tests.benchmarks.results import Soak, soak
from tests.service.served import Served, served

# The committed document.
OPENAPI = Path(http.__file__).parent / "openapi.json"
REWRITE = "python -m service openapi --output service/http/openapi.json"


def test_the_server_answers_with_the_pinned_document_and_the_command_prints_it_or_writes_it_where_it_is_told(
    http: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SBIR_PORT", "not a number")  # what is configured here must not matter
    pinned, before = OPENAPI.read_text(encoding="utf-8"), OPENAPI.stat().st_mtime_ns
    assert http.get("/openapi.json").json() == json.loads(pinned), f"raise API_VERSION, and run: {REWRITE}"
    file = tmp_path / "openapi.json"
    assert main(["openapi", "--output", str(file)]) == 0
    assert file.read_text(encoding="utf-8") == pinned
    assert capsys.readouterr().out == f"{file}\n"
    assert main(["openapi"]) == 0
    assert capsys.readouterr().out == pinned
    assert OPENAPI.stat().st_mtime_ns == before


def test_the_numbers_that_describe_groups_are_those_of_the_search(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    group = document["components"]["schemas"]["Group"]["properties"]
    assert f"the {GROUPED} best" in group["size"]["description"]
    assert f"at most {MORE}." in group["more"]["description"]
    view = next(p for p in document["paths"]["/search"]["post"]["parameters"] if p["name"] == "view")
    assert f"the {GROUPED} best" in view["description"]


def test_every_list_that_a_client_may_send_has_a_bound() -> None:
    def lists(part: Any) -> Iterator[dict[str, Any]]:
        if isinstance(part, dict):
            if part.get("type") == "array":
                yield part
            part = [*part.values()]
        for inner in part if isinstance(part, list) else ():
            yield from lists(inner)

    routes = [route for path in json.loads(OPENAPI.read_text())["paths"].values() for route in path.values()]
    sent = [found for route in routes for found in lists([route.get("parameters"), route.get("requestBody")])]
    assert len(sent) > 20
    assert all("maxItems" in one for one in sent)


schema = schemathesis.openapi.from_path(OPENAPI)
# Seconds for an answer, on a machine that has other things to do.
PATIENCE = 60
# Characters of a query that httpx sends, and that the server's parser of HTTP reads, with the rest of the line: of
# longer ones it says in plain text that they are invalid.
LONGEST_QUERY = 65_000
# For each of the paths.
few = hypothesis.settings(max_examples=hypothesis.settings().max_examples // 33)


@pytest.fixture(scope="module")
def closed(settings: Settings) -> Iterator[Served]:
    """A server that wants a key, so that answers to those who lack it are checked as well."""
    with served(settings, api_key=SecretStr("sesame"), allow_build=False) as server:
        yield server


@pytest.fixture(scope="module")
def run() -> Iterator[Soak]:
    """Returns how the requests to all paths were answered."""
    with soak("Requests generated from the contract, and against it. Each answer is as documented") as made:
        yield made


@pytest.mark.fuzz
@schema.parametrize()
@few
def test_every_answer_is_as_documented(case: schemathesis.Case[Any], closed: Served, sketch: bytes, run: Soak) -> None:
    run.times += 1
    key = {"X-API-Key": "sesame"}
    if len(urlencode(case.query or {}, doseq=True)) > LONGEST_QUERY:
        return
    # The document cannot say which bytes are an image, which methods the checkpoint has, which photos there are, how
    # many results the settings allow, which texts are paths of folders, and who may build.
    limited = case.path in ("/search", "/explain", "/locate", "/photos", "/clusters/{cluster_id}", "/build", "/gallery")
    excluded = [schemathesis.checks.positive_data_acceptance] if limited else []
    case.call_and_validate(base_url=closed.url, headers=key, excluded_checks=excluded, timeout=PATIENCE)
    if case.path not in ("/search", "/explain", "/locate"):
        return
    url = f"{closed.url}{case.path}"
    drawn = httpx.post(url, params=case.query, content=sketch, headers=key, timeout=PATIENCE)
    assert drawn.status_code in (200, 404, 422)
    case.operation.validate_response(drawn)
