"""The pinned OpenAPI document, and that it tells the truth of the running server, whatever is asked."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlencode

import httpx
import hypothesis
import pytest
import schemathesis
from pydantic import SecretStr

from sketch_search import service
from sketch_search.service import http
from sketch_search.service.commands import main
from sketch_search.service.settings import Settings
from tests.benchmarks.results import Soak, soak
from tests.service.served import Served, asked, served

# The committed document.
OPENAPI = Path(http.__file__).parent / "openapi.json"
REWRITE = "python -m service openapi --output service/http/openapi.json"


def test_the_server_answers_with_the_pinned_document_and_the_command_prints_it_or_writes_it_where_it_is_told(
    http: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SKETCH_SEARCH_PORT", "not a number")  # what is configured here must not matter
    pinned, before = OPENAPI.read_text(encoding="utf-8"), OPENAPI.stat().st_mtime_ns
    assert http.get("/openapi.json").json() == json.loads(pinned), f"raise API_VERSION, and run: {REWRITE}"
    file = tmp_path / "openapi.json"
    assert main(["openapi", "--output", str(file)]) == 0
    assert file.read_text(encoding="utf-8") == pinned
    assert capsys.readouterr().out == f"{file}\n"
    assert main(["openapi"]) == 0
    assert capsys.readouterr().out == pinned
    assert OPENAPI.stat().st_mtime_ns == before


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
few = hypothesis.settings(max_examples=hypothesis.settings().max_examples // 33)


@pytest.fixture(scope="module")
def closed(settings: Settings) -> Iterator[Served]:
    """A server that wants a key, so that answers to those who lack it are checked as well."""
    with served(settings, api_key=SecretStr("sesame"), allow_build=False) as server:
        yield server


@pytest.fixture(scope="module")
def run() -> Iterator[Soak]:
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


PAGE = Path(service.__file__).parent / "page"
# All but types, which no browser reads.
FILES = {path.relative_to(PAGE).as_posix(): path for path in PAGE.rglob("*") if path.is_file() and path.suffix != ".ts"}
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in FILES.items() if path.suffix != ".png"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
KINDS = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "json": "application/json",
    "png": "image/png",
    "svg": "image/svg+xml",
    "webmanifest": "application/manifest+json",
}


@pytest.mark.parametrize("name", FILES)
def test_every_file_of_the_page_is_served_as_what_it_is_and_sent_once(http: httpx.Client, name: str) -> None:
    path = "/" if name == "index.html" else f"/page/{name}"
    answer = http.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, KINDS[name.rpartition(".")[2]])
    assert answer.content == PAGE.joinpath(name).read_bytes()
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-cache"
    etag = answer.headers["etag"]
    again = http.get(path, headers={"if-none-match": etag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)


def test_all_that_the_page_loads_is_served() -> None:
    asked = set(re.findall(r'(?:href|src)="page/([^"]+)"', TEXTS["index.html"]))
    for name, text in TEXTS.items():
        if name.endswith(".js"):
            asked |= set(re.findall(r'api\.file\("page/([^"]+)"\)', text))
            for path in re.findall(r'^import .* from "([^"]+)";$', text, re.MULTILINE):
                asked.add(os.path.normpath(PurePosixPath(name).parent / path))
    assert asked == set(FILES) - {"index.html"}


def test_the_policy_allows_all_that_the_page_does_and_no_file_names_another_host() -> None:
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:", TEXTS["index.html"])
    for name, text in TEXTS.items():
        assert not re.search(r"\beval\(|new Function|innerHTML|insertAdjacentHTML|document\.write", text), name
        text = text.replace('xmlns="http://www.w3.org/2000/svg"', "")  # a name, which nothing is loaded from
        assert not re.search(r"(https?|wss?):|[\"'(=]\s*//|@import", text), name


def test_the_rooms_of_the_page_call_downwards() -> None:
    upper = {"drawing", "shared"}
    below = {"shared": set(), "drawing": {"shared"}, "asking": upper, "results": upper, "why": upper}
    for name, text in TEXTS.items():
        room = PurePosixPath(name).parent.name
        if name.endswith(".js") and room:
            assert set(re.findall(r'from "\.\./(?:([^/"]+)/)?', text)) <= below[room], name


def test_only_named_sites_may_show_the_page_in_a_frame(settings: Settings) -> None:
    frame = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
    home = "https://home.example:8123"
    with asked(settings, frame_ancestors=(home,)) as http:
        answer = http.get("/", headers=frame)
        policy = POLICY.removesuffix("'none'") + f"'self' {home}"
        assert (answer.status_code, answer.headers["content-security-policy"]) == (200, policy)
        assert "x-frame-options" not in answer.headers
        assert http.get("/info", headers=frame).status_code == 400
        assert http.get("/info").headers["x-frame-options"] == "DENY"
    with asked(settings) as http:
        assert http.get("/", headers=frame).status_code == 400
    with pytest.raises(ValueError, match="is not an origin"):
        Settings(frame_ancestors=("https://a.example; script-src *",))


def test_a_login_before_the_page_lets_the_manifest_through() -> None:
    assert '<link rel="manifest" href="page/app.webmanifest" crossorigin="use-credentials">' in TEXTS["index.html"]
