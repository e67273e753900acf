"""POST /explain over HTTP, and the command that writes explanations."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from indexer import build
from model import Matcher
from service.commands import main
from service.engine import Engine
from service.errors import ClientGone
from service.schemas.explain import ExplainParams, ExplainResponse
from tests.patience import PATIENCE, wait_for
from tests.pictures import drawing, encoded, photo
from tests.service.served import Served
from tests.service.talk import connect


def test_photos_that_a_search_found_are_explained_in_the_order_asked_for(http: httpx.Client, sketch: bytes) -> None:
    found = [result["id"] for result in http.post("/search", content=sketch, params={"k": 3}).json()["results"]]
    answer = http.post("/explain", content=sketch, params={"photo": found})
    assert answer.status_code == 200, answer.text
    explained = ExplainResponse.model_validate_json(answer.content)
    assert [p.id for p in explained.photos] == found
    alone = http.post("/explain", files={"file": ("a.png", sketch, "image/png")}, params={"photo": found[0]})
    assert alone.json()["photos"][0] == answer.json()["photos"][0]


def test_photos_are_explained_by_a_liked_photo_or_by_one_that_is_sent(http: httpx.Client) -> None:
    liked = http.post("/explain", params={"photo": [3, 4], "like": 7})
    assert liked.status_code == 200, liked.text
    sent = http.post("/explain", params={"photo": [3, 4], "kind": "photo"}, content=http.get("/photos/7").content)
    assert sent.json()["photos"] == liked.json()["photos"]


def test_nothing_or_too_much_to_compare_with_is_refused(http: httpx.Client, sketch: bytes) -> None:
    for query, body, status, words in (
        ("photo=1", b"", 422, "like"),
        ("photo=1&like=2", sketch, 422, "like"),
        ("photo=1&like=2&like=3", b"", 422, "like"),
        ("photo=1&like=99999", b"", 404, "99999"),
    ):
        answer = http.post(f"/explain?{query}", content=body)
        assert (answer.status_code, words in answer.json()["error"]["message"]) == (status, True), answer.text


@pytest.mark.parametrize(
    ("params", "status", "words"),
    [
        ({}, 422, "photo"),
        ({"photo": "999999"}, 404, "999999"),
        *(({"photo": photo}, 422, "photo") for photo in ("-1", "+1", "1_0", "1.0", " 1", "١", "")),
        ({"photo": [str(number) for number in range(13)]}, 422, "photo"),
        ({"photo": "1", "neighbours": "0"}, 422, "neighbours"),
        ({"photo": "1", "photos": "2"}, 422, "photos"),
    ],
)
def test_what_cannot_be_explained_is_refused_with_its_reason(
    http: httpx.Client, sketch: bytes, params: dict[str, str], status: int, words: str
) -> None:
    answer = http.post("/explain", content=sketch, params=params)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]["message"]


def test_a_blank_sketch_cannot_be_explained(http: httpx.Client) -> None:
    blank = encoded(drawing("star", 64).point(lambda _: 255), "PNG")
    assert http.post("/explain", content=blank, params={"photo": "1"}).json()["error"]["code"] == "blank_sketch"


def test_an_explanation_is_told_when_its_client_has_gone(
    server: Served, sketch: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, told = threading.Event(), threading.Event()

    def explain(_: Engine, __: bytes, ___: ExplainParams, gone: Callable[[], bool]) -> ExplainResponse:
        begun.set()
        while not gone():
            begun.wait(PATIENCE)
        told.set()
        raise ClientGone("Whoever asked has hung up.")

    monkeypatch.setattr(Engine, "explain", explain)
    with connect(server) as connection:
        head = f"POST /explain?photo=1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(sketch)}\r\n\r\n"
        connection.sendall(head.encode() + sketch)
        wait_for(begun, "the explanation has not begun")
    wait_for(told, "the explanation was not told")


def test_the_command_writes_an_explanation(
    tmp_path: Path, weights: Path, matcher: Matcher, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, shape in enumerate(("star", "house", "circle", "star")):
        photo(shape, 96, seed).save(tmp_path / f"{seed}.png")
    (tmp_path / "photos").mkdir()
    for path in tmp_path.glob("*.png"):
        path.rename(tmp_path / "photos" / path.name)
    build([tmp_path / "photos"], tmp_path / "index", matcher)
    drawing("star", 96).save(tmp_path / "sketch.png")
    common = ["--index", str(tmp_path / "index"), "--weights", str(weights)]
    assert main(["explain", *common, str(tmp_path / "sketch.png"), "-o", str(tmp_path / "why")]) == 0
    assert str(tmp_path / "why" / "explanation.html") in capsys.readouterr().out
    assert len(json.loads((tmp_path / "why" / "explanation.json").read_text())["photos"]) == 3
    one = ["explain", *common, str(tmp_path / "sketch.png"), str(tmp_path / "photos" / "1.png")]
    assert main([*one, "-o", str(tmp_path / "one")]) == 0
    assert len(json.loads((tmp_path / "one" / "explanation.json").read_text())["photos"]) == 1
    assert main(["explain", *common, str(tmp_path / "none.png"), "-o", str(tmp_path / "why")]) == 2
    assert "none.png" in capsys.readouterr().err


def test_a_file_is_no_folder_for_files_and_that_is_said_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "why"
    file.touch()
    for output in (file, file / "below"):
        assert main(["explain", "no sketch.png", "-o", str(output)]) == 2
        assert capsys.readouterr().err == (
            f"sketch-search: --output {output}: {file} is a file; name a folder for the files.\n"
        )
