from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

import model
from indexer import Request, build
from service.schemas import Group, SearchResult
from service.settings import Settings
from tests.benchmarks.clicks import Person, main
from tests.learning import write_class_folders
from tests.networks import tiny_checkpoint
from tests.service.served import served


def found(number: int, label: str) -> SearchResult:
    paths = (f"photos/{label}/{number}.jpg",)
    shown = {"photo_url": None, "thumbnail_url": "", "rank": number, "score": 0.5, "raw_score": 0.5, "cluster": 0}
    return SearchResult.model_validate({"id": number, "paths": paths, **shown})


def group(rank: int, *photos: SearchResult) -> Group:
    return Group(rank=rank, size=len(photos), best=photos[0], more=photos[1:])


def test_a_person_likes_the_first_right_photo_that_is_not_liked_yet_or_dislikes_the_first_groups() -> None:
    person = Person("dog")
    page = [group(1, found(1, "pig"), found(2, "dog")), group(2, found(3, "dog"), found(4, "dog"))]
    for liked in ([3], [3, 2], [3, 2, 4], [3, 2, 4]):
        person.click(page)
        assert (person.like, person.unlike) == (liked, [])
    person, wrong = Person("dog"), [group(n, found(n, "pig"), found(n + 10, "pig")) for n in range(1, 6)]
    for _ in range(2):
        person.click(wrong)
        assert (person.like, person.unlike) == ([], [1, 2, 3])


def test_the_command_tells_what_each_click_helped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_class_folders(tmp_path / "data", seeds=range(6), shapes=("star", "house", "circle"))
    weights = tiny_checkpoint(tmp_path / "tiny.safetensors", variants=1)
    matcher = model.load(weights, dtype="float32")
    build(tmp_path / "index", Request([tmp_path / "data" / "photo"], clusters=4, embedder="ret"), matcher)
    settings = Settings(index=tmp_path / "index", weights=weights, dtype="float32", api_key=SecretStr("secret"))
    with served(settings) as server:
        command = ["--url", server.url, "--api-key", "secret", "--data", str(tmp_path / "data")]
        assert main([*command, "--per-class", "2", "--k", "4", "--clicks", "2"]) == 0
    title, _, *rows = capsys.readouterr().out.splitlines()
    assert title == "| clicks (6 sketches) | pages of groups with a right photo | precision@4 |"
    assert [row.split("|")[1].strip() for row in rows] == ["0", "1", "2"]
    pages = [float(row.split("|")[2]) for row in rows]
    assert 0 <= pages[0] <= 1
    # A liked photo is the first result itself.
    assert pages[-1] == 1
