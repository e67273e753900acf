"""The web page over plain HTTP: what is served, as what, and that it keeps to itself."""

import os
import re
from pathlib import Path, PurePosixPath

import httpx
import pytest

from sketch_search import service
from sketch_search.service.settings import Settings
from tests.service.served import asked

PAGE = Path(service.__file__).parent / "page"
FILES = [path for path in PAGE.rglob("*") if path.is_file()]
TEXTS = {path.relative_to(PAGE).as_posix(): path.read_text(encoding="utf-8") for path in FILES}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
KINDS = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
    "webmanifest": "application/manifest+json",
}


@pytest.mark.parametrize("name", TEXTS)
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
            data = re.findall(r'new URL\("([^"]+)", import\.meta\.url\)', text)
            for path in [*data, *re.findall(r'^import .* from "([^"]+)";$', text, re.MULTILINE)]:
                asked.add(os.path.normpath(PurePosixPath(name).parent / path))
    assert asked == set(TEXTS) - {"index.html"}


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
