"""The web page over plain HTTP: what is served, as what, and that it keeps to itself."""

import os
import re
from pathlib import Path, PurePosixPath

import httpx
import pytest
from pydantic import SecretStr

import service
from service.settings import Settings
from tests.patience import PATIENCE
from tests.service.served import served

PAGE = Path(service.__file__).parent / "page"
TEXTS = {
    path.relative_to(PAGE).as_posix(): path.read_text(encoding="utf-8") for path in PAGE.rglob("*") if path.is_file()
}
FILES = sorted(set(TEXTS) - {"index.html"})
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' blob: data:",
    "connect-src": "'self'",
    "manifest-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}


def check_headers(answer: httpx.Response) -> None:
    policy = dict(rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";"))
    assert policy == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-cache"


def test_the_page_is_served_at_the_root(http: httpx.Client) -> None:
    answer = http.get("/")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.text == TEXTS["index.html"]
    check_headers(answer)


@pytest.mark.parametrize("name", FILES)
def test_every_file_of_the_page_is_served_as_what_it_is(http: httpx.Client, name: str) -> None:
    answer = http.get(f"/page/{name}")
    kinds = {
        "js": "text/javascript; charset=utf-8",
        "css": "text/css; charset=utf-8",
        "svg": "image/svg+xml",
        "webmanifest": "application/manifest+json",
    }
    assert (answer.status_code, answer.headers["content-type"]) == (200, kinds[name.rpartition(".")[2]])
    assert answer.content == PAGE.joinpath(name).read_bytes()
    check_headers(answer)


def test_all_that_the_page_loads_is_served() -> None:
    asked = set(re.findall(r'(?:href|src)="page/([^"]+)"', TEXTS["index.html"]))
    for name, text in TEXTS.items():
        if name.endswith(".js"):
            for path in re.findall(r'^import .* from "([^"]+)";$', text, re.MULTILINE):
                asked.add(os.path.normpath(PurePosixPath(name).parent / path))
    assert asked == set(FILES)


@pytest.mark.parametrize(
    "path",
    [
        "/page/",
        "/page/index.html",
        "/page/nothing.js",
        "/page/..%2Fapp.py",
        "/page/../app.py",
        "/page/..%2Fhttp%2Fopenapi.js",
        "/page/%2Fetc%2Fpasswd",
        f"/page/{'long' * 100}.js",
        "/page/main.js%00.js",
    ],
)
def test_nothing_else_is_served(http: httpx.Client, path: str) -> None:
    answer = http.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


def test_a_file_that_the_browser_has_is_not_sent_again(http: httpx.Client) -> None:
    for path in ("/", "/page/main.js"):
        etag = http.get(path).headers["etag"]
        again = http.get(path, headers={"if-none-match": etag})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)


@pytest.mark.parametrize("wanted", ["bytes=0-9", "bytes=999999999-", "bytes=x", "lines=1-2", "bytes=" + "0-0," * 99])
def test_a_range_is_answered_with_the_whole_file(http: httpx.Client, wanted: str) -> None:
    answer = http.get("/", headers={"range": wanted})
    assert (answer.status_code, answer.text) == (200, TEXTS["index.html"])


def test_the_page_itself_needs_no_api_key(settings: Settings) -> None:
    with served(settings, api_key=SecretStr("secret")) as server:
        assert httpx.get(f"{server.url}/", timeout=PATIENCE).status_code == 200
        assert httpx.get(f"{server.url}/page/main.js", timeout=PATIENCE).status_code == 200
        assert httpx.get(f"{server.url}/info", timeout=PATIENCE).status_code == 401


@pytest.mark.parametrize("name", TEXTS)
def test_no_file_names_another_host(name: str) -> None:
    text = TEXTS[name].replace('xmlns="http://www.w3.org/2000/svg"', "")  # a name, which nothing is loaded from
    assert not re.search(r"(https?|wss?):|[\"'(=]\s*//|@import", text)


def test_the_policy_allows_all_that_the_page_does() -> None:
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:", TEXTS["index.html"])
    for name, text in TEXTS.items():
        assert not re.search(r"\beval\(|new Function|innerHTML|insertAdjacentHTML|document\.write", text), name


def test_the_rooms_of_the_page_call_downwards() -> None:
    upper = {"drawing", "shared"}
    below = {"shared": set(), "drawing": {"shared"}, "asking": {"shared"}, "results": upper, "why": upper}
    for name, text in TEXTS.items():
        room = PurePosixPath(name).parent.name
        if name.endswith(".js") and room:
            assert set(re.findall(r'from "\.\./(?:([^/"]+)/)?', text)) <= below[room], name


def test_every_module_stays_small() -> None:
    lines = {name: len(text.splitlines()) for name, text in TEXTS.items() if name.endswith(".js")}
    assert max(lines.values()) <= 330
