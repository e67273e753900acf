from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr

import model
from indexer import Request, build
from model.datasets import Corpus
from model.evaluation.scoring import encode_pictures
from service.client import Client
from service.errors import BadSearch
from service.schemas import Group, SearchResult
from service.settings import Settings
from tests.benchmarks.evaluation import Person, evaluate_server, figures_table, list_figures, main
from tests.learning import write_class_folders
from tests.networks import tiny_checkpoint
from tests.service.served import served


@dataclass(frozen=True)
class Labelled:
    """A server of an index of labelled photos, which wants a key. data: the folder of the photos and their sketches."""

    data: Path
    corpus: Corpus
    weights: Path
    url: str
    client: Client


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labelled]:
    folder = tmp_path_factory.mktemp("labelled")
    corpus = write_class_folders(folder / "data", seeds=range(6), shapes=("star", "house", "circle"))
    weights = tiny_checkpoint(folder / "tiny.safetensors", variants=1)
    matcher = model.load(weights, dtype="float32")
    build(folder / "index", Request([folder / "data" / "photo"], clusters=4, embedder="ret"), matcher)
    settings = Settings(index=folder / "index", weights=weights, dtype="float32", api_key=SecretStr("secret"))
    with served(settings) as server, Client(server.url, "secret") as client:
        yield Labelled(folder / "data", corpus, weights, server.url, client)


def test_the_evaluation_of_a_server_agrees_with_scoring_every_pair(labelled: Labelled) -> None:
    corpus, queries = labelled.corpus, labelled.corpus.sketches[::3]
    matcher = model.load(labelled.weights, dtype="float32")
    result = evaluate_server(labelled.client, queries, k=4, nprobes=[1, None])
    assert (result.queries, result.photos, result.clusters) == (len(queries), 18, 4)
    assert list(result.searches) == ["auto", "rn", "ret"]

    sketches = encode_pictures(matcher, queries, "sketch")
    scores = matcher.scores(sketches, encode_pictures(matcher, corpus.photos, "photo"), "rn")
    best = np.argsort(-scores, axis=1)[:, :4].tolist()
    hits = [sum(corpus.photos[i].label == q.label for i in row) / 4 for q, row in zip(queries, best, strict=True)]
    rn = result.searches["rn"]
    assert rn["all"]["precision"] == pytest.approx(sum(hits) / len(hits), abs=1e-6)
    assert rn["all"]["recall"] == pytest.approx(sum(hits) / len(hits) * 4 / 6, abs=1e-6)
    assert rn["all"]["agreement"] == 1
    assert rn["all"]["map"] <= rn["all"]["map_of_found"]
    assert rn["all"]["pairs"] == 18 + 4
    assert rn["1"]["pairs"] < 18 + 4
    assert 0 < rn["1"]["agreement"] <= 1
    assert rn["1"]["p50_ms"] <= rn["1"]["p95_ms"]
    assert "agreement" in figures_table(result)


def test_an_evaluation_needs_sketches_and_a_server_that_is_ready(tmp_path: Path) -> None:
    with served(Settings(index=tmp_path / "none")) as server, Client(server.url) as client:
        with pytest.raises(BadSearch, match="needs sketches"):
            evaluate_server(client, [])
        corpus = write_class_folders(tmp_path / "data", seeds=range(1), shapes=("star",))
        with pytest.raises(BadSearch, match="cannot answer yet"):
            evaluate_server(client, corpus.sketches)


def test_sketches_of_classes_that_the_gallery_lacks_are_left_out(labelled: Labelled) -> None:
    known = [sketch for sketch in labelled.corpus.sketches if sketch.label == "house"]
    unknown = [dataclasses.replace(sketch, label="castle") for sketch in known]
    assert evaluate_server(labelled.client, [*known, *unknown], k=2, methods=["ret"]).queries == len(known)
    with pytest.raises(BadSearch, match="none can be right"):
        evaluate_server(labelled.client, unknown)


def test_a_searchs_list_is_judged_by_its_hits_and_by_what_the_gallery_has() -> None:
    area = 1 + 2 / 3
    listed = list_figures([True, False, True, False, True], relevant=8, k=4)
    assert [*listed.values()] == pytest.approx([area / 4, area / 2, 2 / 4, 2 / 8])
    # A later hit may lift the precision of an earlier one.
    assert list_figures([False, True, True], relevant=2, k=3)["map"] == pytest.approx(2 / 3)
    assert set(list_figures([], relevant=3, k=5).values()) == {0}
    with pytest.raises(ValueError, match="counts do not fit"):
        list_figures([True, True], relevant=1, k=2)


def found(number: int, label: str) -> SearchResult:
    paths = (f"photos/{label}/{number}.jpg",)
    shown = {"photo_url": None, "thumbnail_url": "", "rank": number, "score": 0.5, "raw_score": 0.5, "cluster": 0}
    return SearchResult.model_validate({"id": number, "paths": paths, **shown})


def kind(rank: int, *photos: SearchResult) -> Group:
    return Group(rank=rank, size=len(photos), best=photos[0], more=photos[1:])


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


def test_the_command_tells_what_each_click_helped(labelled: Labelled, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--url", labelled.url, "--api-key", "secret", "--data", str(labelled.data)]
    command = [*asked, "--per-class", "2", "--k", "4", "--feedback"]
    assert main([*command, "2", "--json", "--method", "ret"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert main([*command, "0"]) == 0
    table = capsys.readouterr().out
    assert (result["queries"], result["photos"], result["k"]) == (6, 18, 4)
    before, once, twice = result["searches"]["ret"].values()
    assert all(0 <= value <= 1 for row in (before, once, twice) for value in row.values())
    # A liked photo is the first result itself.
    assert once["right_photo"] >= before["right_kind"]
    assert twice["right_photo"] == 1
    assert twice["recall"] <= 1
    assert "auto" in table
    assert "right_kind" in table
