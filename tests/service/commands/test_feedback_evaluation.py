"""What a few clicks help, as a simulated person finds it out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import model
from indexer import build
from service.commands import main
from service.commands.evaluation import Person
from service.schemas import Kind, SearchResult
from service.settings import Settings
from tests.learning import write_class_folders
from tests.networks import tiny_checkpoint
from tests.service.served import served


def found(number: int, label: str) -> SearchResult:
    """A photo of a class among the results."""
    paths = (f"photos/{label}/{number}.jpg",)
    shown = {"photo_url": None, "thumbnail_url": "", "rank": number, "score": 0.5, "raw_score": 0.5, "cluster": 0}
    return SearchResult.model_validate({"id": number, "paths": paths, **shown})


def kind(rank: int, *photos: SearchResult) -> Kind:
    """Photos that look alike."""
    return Kind(rank=rank, size=len(photos), best=photos[0], more=photos[1:])


def test_a_person_likes_the_first_right_photo_that_is_not_liked_yet() -> None:
    person = Person("dog")
    page = [kind(1, found(1, "pig"), found(2, "dog")), kind(2, found(3, "dog"), found(4, "dog"))]
    for liked in ([3], [3, 2], [3, 2, 4], [3, 2, 4]):
        person.click(page)
        assert (person.like, person.unlike) == (liked, [])


def test_a_person_dislikes_the_first_kinds_of_a_page_without_a_right_photo() -> None:
    person = Person("dog")
    page = [kind(n, found(n, "pig"), found(n + 10, "pig")) for n in range(1, 6)]
    person.click(page)
    person.click(page)
    assert (person.like, person.unlike) == ([], [1, 2, 3])


def test_the_command_tells_what_each_click_helped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_class_folders(tmp_path / "data", seeds=range(6), shapes=("star", "house", "circle"))
    weights = tiny_checkpoint(tmp_path / "tiny.safetensors")
    build([tmp_path / "data" / "photo"], tmp_path / "index", model.load(weights), embedder="ret")
    command = ["evaluate", "--data", str(tmp_path / "data"), "--per-class", "2", "--k", "4", "--feedback"]
    with served(Settings(index=tmp_path / "index", weights=weights)) as server:
        assert main([*command, "2", "--json", "--method", "ret", "--url", server.url]) == 0
        result = json.loads(capsys.readouterr().out)
        assert main([*command, "0", "--url", server.url]) == 0
        table = capsys.readouterr().out
        assert main([*command, "--nprobe", "2", "--url", server.url]) == 2
        assert "one at a time" in capsys.readouterr().err
        assert main([*command, "-1", "--url", server.url]) == 2
        assert "0 or more" in capsys.readouterr().err
    assert (result["queries"], result["photos"], result["k"]) == (6, 18, 4)
    before, once, twice = result["searches"]["ret"].values()
    assert all(0 <= value <= 1 for row in (before, once, twice) for value in row.values())
    # A liked photo is the first result itself.
    assert once["right_photo"] >= before["right_kind"]
    assert twice["right_photo"] == 1
    assert twice["recall"] <= 1
    assert "auto" in table
    assert "right_kind" in table
