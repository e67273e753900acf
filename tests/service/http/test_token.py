import json
import os
import re
import signal
from http import cookies
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from sketch_search.service.settings import Settings
from tests.programs import PATIENCE, wait_until
from tests.service.served import Served, check_is_stranger, running


def test_neither_this_machine_nor_a_wrong_token_is_enough(server: Served, gallery: Path) -> None:
    name = f"sketch-search-{urlsplit(server.url).port}"
    for wrong in ("", "wrong", server.app.state.token[:-1], "\xff"):
        for header in ({"x-sbir-token": wrong}, {"cookie": f"{name}={wrong}"}):
            with httpx.Client(base_url=server.url, timeout=PATIENCE) as http:
                check_is_stranger(http, gallery, **header)


def test_no_cookie_but_the_servers_own_is_read(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    read = list[str]()

    def noted(value: str) -> str:
        """In the place of what takes the square of a value's length."""
        read.append(value)
        return value

    monkeypatch.setattr(cookies, "_unquote", noted)
    own = f"sketch-search-{urlsplit(server.url).port}"
    quotes = '"' + '\\"' * 20_000 + '"'
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as http:
        for name in ("a", own):
            check_is_stranger(http, Path("/"), cookie=f"{name}={quotes}")
        http.headers["cookie"] = f"a={quotes}; {own}={server.app.state.token};{own}"
        assert http.get("/info").json()["allows"]["build"]
    assert {*read} == {server.app.state.token}


def test_the_token_is_printed_on_a_terminal_or_in_a_file(default_settings: Settings, tmp_path: Path) -> None:
    # In the place of a browser: it notes what it is to open.
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >{tmp_path}/opened.part; mv {tmp_path}/opened.part {tmp_path}/opened\n')
    browser.chmod(0o700)
    # The server is told to end by it; who runs the tests may ignore it, as nohup does.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with running(
        default_settings,
        tmp_path / "log",
        "--open",
        BROWSER=str(browser),
        SBIR_LOG_FORMAT="json",
        SBIR_METRICS_PORT="0",
    ) as process:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline())["message"] for _ in range(3)]
        assert [line.rpartition(" ")[0] for line in lines] == [
            "metrics at",
            "sketch-search at",
            "open this file for the page with the token; only you can read it:",
        ]
        page = Path(lines[2].split()[-1])
        assert page.stat().st_mode & 0o777 == 0o600
        url = lines[1].split()[-1]
        assert "token" not in url
        wait_until((tmp_path / "opened").exists, "no browser is opened")
        assert (tmp_path / "opened").read_text() == f"{page.as_uri()}\n"
        address = page.read_text().partition("url=")[2].partition('"')[0]
        with httpx.Client(timeout=PATIENCE, follow_redirects=True) as http:
            http.get(address)
            assert http.get(f"{url}/info").json()["allows"]["build"]
        # As a terminal sends it that is closed.
        process.send_signal(signal.SIGHUP)
        process.wait(PATIENCE)
        assert not page.exists()
    with running(default_settings, tmp_path / "log", SBIR_ALLOW_BUILD="no") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        process.terminate()
        assert "token" not in "".join([*lines, *process.stdout])


def test_a_terminal_shows_the_address_with_the_token(default_settings: Settings, tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    with (
        open(ours, "rb", buffering=0) as shown,
        open(theirs, "wb") as terminal,
        running(default_settings, tmp_path / "log", output=terminal),
    ):
        line = shown.readline()
    assert re.fullmatch(rb"sketch-search at http://127.0.0.1:[0-9]+/\?token=[\w-]{32}\r\n", line)


def test_the_token_in_the_pages_address_becomes_a_cookie_that_no_script_and_no_other_site_has(server: Served) -> None:
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as http:
        answer = http.get(server.page)
        assert (answer.status_code, answer.headers["location"]) == (303, "./")
        name, *attributes = answer.headers["set-cookie"].split("; ")
        assert name == f"sketch-search-{urlsplit(server.url).port}={server.app.state.token}"
        assert {*attributes} == {"HttpOnly", "Path=/", "SameSite=strict"}
        assert answer.headers["cache-control"] == "no-store"
        assert http.get("/info").json()["allows"]["build"]
    refused = httpx.get(server.url, params={"token": "wröng"}, timeout=PATIENCE)
    assert (refused.status_code, "set-cookie" in refused.headers) == (303, False)
