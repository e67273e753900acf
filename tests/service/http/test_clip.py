"""POST /search, GET /words and GET /info over an index that was clustered by CLIP, over real HTTP."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest
import torch

import model
from indexer import ClipTowers, EmbedderEntry, build, open_towers
from model.terminal import BAD_INPUT
from service.client import Client, ServiceError
from service.commands import main
from service.schemas import InfoResponse, SearchResponse
from service.settings import Settings
from service.towers import Towers
from tests.indexer.clip_models import READING, saved_clip
from tests.patience import PATIENCE, wait_for, wait_until
from tests.pictures import encoded
from tests.service.jobs import Gate
from tests.service.served import asked
from tests.service.small_gallery import PHOTOS, draw_photo
from tests.service.talk import error
from tests.service.wordy import wordy

TEXT = "my dog, on a beach"
NAME = "CLIP from reading-clip"


@pytest.fixture(scope="module")
def by_clip(tmp_path_factory: pytest.TempPathFactory, gallery: Path, settings: Settings) -> Settings:
    """The settings of a server whose index was clustered by CLIP, and whose checkpoint has two words."""
    folder = tmp_path_factory.mktemp("by-clip")
    clip = saved_clip(folder / "reading-clip", READING)
    shutil.copytree(gallery, folder / "photos")
    return wordy(settings, folder / "photos", folder, (("dog", "hound"), ("cat",)), f"clip:{clip}")


@pytest.fixture(scope="module")
def http_clip(by_clip: Settings) -> Iterator[httpx.Client]:
    with asked(by_clip) as connection:
        yield connection


def test_any_text_finds_photos_and_the_answer_says_by_what(http_clip: httpx.Client, sketch: bytes) -> None:
    for text in (TEXT, "dog", "שלום עולם", "\N{DOG FACE}", "<script>alert(1)</script>", "x" * 100):
        for body in (b"", sketch):
            found = http_clip.post("/search", content=body, params={"text": text, "k": 3})
            assert SearchResponse.model_validate_json(found.content, strict=True).words == "clip"
            assert [result["rank"] for result in found.json()["results"]] == [1, 2, 3]
    assert "words" not in http_clip.post("/search", content=sketch).json()


def test_method_clip_scores_by_the_sketch(http_clip: httpx.Client, sketch: bytes) -> None:
    plain = http_clip.post("/search", content=sketch, params={"method": "clip", "k": PHOTOS}).json()
    assert (plain["method"], plain["diffused"], plain["candidates"]) == ("clip", False, PHOTOS)
    assert all(-1 <= result["score"] <= 1.001 for result in plain["results"])
    spread = http_clip.post("/search", content=sketch, params={"method": "clip", "diffuse": "true"}).json()
    assert spread["diffused"] is True
    assert error(http_clip.post("/search", params={"method": "clip", "text": TEXT})) == (422, "bad_parameter")


def test_words_and_info_name_the_text_tower(http_clip: httpx.Client, http: httpx.Client) -> None:
    words = http_clip.get("/words").json()
    assert words == {"vocabulary": 2, "words": ["cat", "dog"], "text_tower": NAME}
    index = http_clip.get("/info").json()["index"]
    assert (index["text_tower"], index["text_tower_refused"]) == (NAME, None)
    without = InfoResponse.model_validate_json(http.get("/info").content).index
    assert without is not None
    assert (without.text_tower, without.text_tower_refused) == (None, None)


def test_a_slow_tower_slows_nobody_who_does_not_need_it(
    by_clip: Settings, sketch: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()

    def slow(entry: EmbedderEntry, device: torch.device) -> ClipTowers:
        gate()
        return open_towers(entry, device)

    monkeypatch.setattr("service.serving.live.Towers", partial(Towers, load=slow))
    with asked(by_clip) as http:
        ask = partial(httpx.post, http.base_url.join("/search"), timeout=PATIENCE)
        with ThreadPoolExecutor(3) as clients:
            waiting = [clients.submit(ask, params={"text": f"{TEXT} {number}"}) for number in range(3)]
            wait_for(gate.begun, "nobody has asked CLIP")
            for _ in range(3):
                assert http.post("/search", content=sketch).status_code == 200
            assert http.get("/words").status_code == 200
            assert not any(search.done() for search in waiting)
            gate.opened.set()
            assert [search.result().json()["words"] for search in waiting] == 3 * ["clip"]


def test_towers_outlive_a_generation(by_clip: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, photos = moved(by_clip, tmp_path)
    assert settings.index is not None
    assert settings.weights is not None
    loads: list[str] = []

    def load(entry: EmbedderEntry, device: torch.device) -> ClipTowers:
        loads.append(entry.name)
        return open_towers(entry, device)

    monkeypatch.setattr("service.serving.live.Towers", partial(Towers, load=load))
    with asked(settings) as http:
        assert http.post("/search", params={"text": TEXT}).json()["words"] == "clip"
        (photos / "one more.png").write_bytes(encoded(draw_photo(99)))
        newest = build([photos], settings.index, model.load(settings.weights)).generation
        wait_until(lambda: http.get("/info").json()["index"]["generation"] == newest, "the new index is not in use")
        found = http.post("/search", params={"text": "another text", "k": 50}).json()
        assert (found["words"], found["candidates"]) == ("clip", PHOTOS + 1)
    assert loads == [NAME]


def test_without_its_clip_model_an_index_is_searched_by_the_vocabulary(
    by_clip: Settings, sketch: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, _ = moved(by_clip, tmp_path)
    assert settings.index is not None
    manifest = next(settings.index.glob("*/manifest.json"))
    said = json.loads(manifest.read_text())
    said["embedder"]["spec"] = "clip:/nowhere/clip"
    manifest.write_text(json.dumps(said))
    why = "clip:/nowhere/clip is neither a file nor an open_clip model with weights"
    with asked(settings) as http:
        for _ in range(2):
            assert http.post("/search", content=sketch, params={"text": "hounds"}).json()["words"] == "vocabulary"
            unknown = http.post("/search", params={"text": "my dog"})
            assert error(unknown) == (422, "unknown_word")
            for told in (unknown, http.post("/search", content=sketch, params={"method": "clip"})):
                assert told.status_code == 422
                assert why in told.json()["error"]["message"]
        index = http.get("/info").json()["index"]
        assert index["text_tower"] is None
        assert index["text_tower_refused"].startswith(why)
        assert "text_tower" not in http.get("/words").json()
        with (
            Client(str(http.base_url)) as client,
            pytest.raises(ServiceError, match="read other words: clip:/no"),
        ):
            client.search(text="my dog")
    command = ["search", "--text", "my dog", "--index", str(settings.index), "--weights", str(settings.weights)]
    assert main(command) == BAD_INPUT
    assert why in capsys.readouterr().err


def moved(settings: Settings, folder: Path) -> tuple[Settings, Path]:
    """A copy of the index and of its photos, for a test that changes them."""
    assert settings.index is not None
    shutil.copytree(settings.index.parent, folder / "copy")
    return settings.model_copy(update={"index": folder / "copy" / "index"}), folder / "copy" / "photos"
