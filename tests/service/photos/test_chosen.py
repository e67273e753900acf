from __future__ import annotations

import io
import os
import shutil
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from indexer import Index, Request, build
from model import Matcher
from service import photos
from service.http import routes
from service.http.archive import _local_time, file_names
from service.settings import Settings
from tests.patience import PATIENCE, wait_until
from tests.service.served import Served, asked
from tests.service.talk import error


@pytest.fixture
def trusted(server: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers=server.token, timeout=PATIENCE) as connection:
        yield connection


def unzipped(answer: httpx.Response) -> dict[str, bytes]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_chosen_photos_come_as_one_file_each_as_it_is_and_once(
    http: httpx.Client, index: Index, gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "PART", 1000)
    files = [gallery / index.photo(photo).paths[0] for photo in (1, 7, 9)]
    answer = http.get("/photos.zip", params={"id": [1, 7, 9, 7]})
    assert "content-length" not in answer.headers  # it is sent while it is made
    assert unzipped(answer) == {file.name: file.read_bytes() for file in files}


def test_photos_in_a_file_keep_the_time_of_their_last_change(http: httpx.Client, index: Index, gallery: Path) -> None:
    entry = index.photo(7)
    changed = (gallery / entry.paths[0]).stat().st_mtime
    with zipfile.ZipFile(io.BytesIO(http.get("/photos.zip", params={"id": 7}).content)) as archive:
        (written,) = archive.infolist()
    # A ZIP file counts in steps of two seconds.
    assert abs(time.mktime((*written.date_time, 0, 0, -1)) - changed) < 2
    for moment, year in ((-(10**18), 1980), (0, 1980), (10**18, 2001), (2**62, 2106)):
        assert _local_time(replace(entry, changed=moment))[0] == year


def test_names_do_not_clash_and_suit_every_system() -> None:
    paths = ["a/cat.jpg", "b/Cat.JPG", "c/cat.jpg", "d/what? a:name.png", "e/..", "f/.hidden", "g/cat (2).jpg"]
    names = ["cat.jpg", "Cat (2).JPG", "cat (3).jpg", "what_ a_name.png", "_", "hidden", "cat (2) (2).jpg"]
    assert file_names(paths) == names


def test_a_photo_that_is_gone_is_told_in_the_file(
    settings: Settings, gallery: Path, tmp_path: Path, matcher: Matcher
) -> None:
    copy = shutil.copytree(gallery, tmp_path / "gallery")
    build(tmp_path / "index", Request([copy], embedder="ret"), matcher)
    with asked(settings, index=tmp_path / "index") as http:
        first, second = (http.get("/photos", params={"id": n}).json()["photos"][0]["paths"][0] for n in (7, 9))
        (copy / first).unlink()
        found = unzipped(http.get("/photos.zip", params={"id": [7, 9]}))
        assert list(found) == [Path(second).name, "not in this file.txt"]
        assert first in found["not in this file.txt"].decode()


def test_what_cannot_be_put_into_a_file_is_refused(settings: Settings, http: httpx.Client) -> None:
    assert error(http.get("/photos.zip", params={"id": [1, 1000]})) == (404, "not_found")
    assert error(http.get("/photos.zip")) == (422, "bad_parameter")
    assert error(http.get("/photos.zip", params={"id": range(1, 66)})) == (422, "bad_parameter")
    with asked(settings, serve_originals=False) as closed:
        assert error(closed.get("/photos.zip", params={"id": 1})) == (404, "not_found")
        assert "files" not in closed.get("/photos", params={"id": 1}).json()["photos"][0]
        assert error(closed.post("/photos/1/reveal")) == (403, "forbidden")


def test_only_who_has_the_token_is_told_where_files_lie(
    http: httpx.Client, trusted: httpx.Client, index: Index, gallery: Path
) -> None:
    here, elsewhere = (one.get("/photos?id=1").json()["photos"][0] for one in (trusted, http))
    assert here.pop("files") == [str(gallery / path) for path in index.photo(1).paths]
    assert here == elsewhere


@pytest.mark.skipif(os.name == "nt", reason="the program is a shell script")
def test_a_file_manager_shows_the_folder_of_a_photo(
    trusted: httpx.Client, index: Index, gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert photos.file_manager() is None
    assert trusted.get("/info").json()["allows"]["reveal"] is False
    assert error(trusted.post("/photos/1/reveal")) == (404, "not_found")
    program = tmp_path / "xdg-open"
    program.write_text(f'#!/bin/sh\ncd "{tmp_path}" && printf "%s\\n" "$#" "$@" > partly && /bin/mv partly shown\n')
    program.chmod(0o755)
    assert trusted.get("/info").json()["allows"]["reveal"] is True
    assert trusted.post("/photos/1/reveal").status_code == 204
    wait_until((tmp_path / "shown").exists, "nothing was shown")
    assert (tmp_path / "shown").read_text().split("\n") == ["1", str((gallery / index.photo(1).paths[0]).parent), ""]
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert photos.file_manager() is None


def test_nobody_else_has_a_file_shown(http: httpx.Client, trusted: httpx.Client) -> None:
    assert http.get("/info").json()["allows"] == {"build": False, "reveal": False, "needs_token": True}
    refused = http.post("/photos/1/reveal")
    assert error(refused) == (403, "forbidden")
    assert "server.json" in refused.json()["error"]["message"]
    cross_site = {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}
    assert error(trusted.post("/photos/1/reveal", headers=cross_site)) == (400, "bad_request")
    assert error(trusted.post("/photos/1000/reveal")) == (404, "not_found")
