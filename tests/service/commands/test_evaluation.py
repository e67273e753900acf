from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from pydantic import SecretStr

import model
from indexer import build
from model.evaluation.scoring import encode_pictures
from service.client import Client
from service.commands import main
from service.commands.evaluation import evaluate_server, figures_table
from service.errors import BadSearch
from service.settings import Settings
from tests.learning import write_class_folders
from tests.networks import tiny_checkpoint
from tests.service.served import served


def test_the_evaluation_of_a_server_agrees_with_scoring_every_pair(tmp_path: Path) -> None:
    corpus = write_class_folders(tmp_path / "data", seeds=range(6), shapes=("star", "house", "circle"))
    weights = tiny_checkpoint(tmp_path / "tiny.safetensors", variants=1)
    matcher = model.load(weights, dtype=torch.float32)
    build([tmp_path / "data" / "photo"], tmp_path / "index", matcher, clusters=4, embedder="ret")
    queries = corpus.sketches[::3]
    settings = Settings(index=tmp_path / "index", weights=weights, dtype="float32")
    with served(settings) as server, Client(server.url) as client:
        result = evaluate_server(client, queries, k=4, nprobes=[1, None])
    assert (result.queries, result.photos, result.clusters) == (len(queries), 18, 4)
    assert list(result.searches) == ["auto", "rn", "ret"]

    sketches = encode_pictures(matcher, queries, "sketch")
    scores = matcher.scores(sketches, encode_pictures(matcher, corpus.photos, "photo"), "rn")
    best = scores.topk(4).indices.tolist()
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


def test_sketches_of_classes_that_the_gallery_lacks_are_left_out(tmp_path: Path) -> None:
    corpus = write_class_folders(tmp_path / "data", seeds=range(2), shapes=("star", "house"))
    weights = tiny_checkpoint(tmp_path / "tiny.safetensors")
    build([tmp_path / "data" / "photo"], tmp_path / "index", model.load(weights), embedder="ret")
    fewer = [sketch for sketch in corpus.sketches if sketch.label == "house"]
    with served(Settings(index=tmp_path / "index", weights=weights)) as server, Client(server.url) as client:
        renamed = [dataclasses.replace(sketch, label="castle") for sketch in fewer]
        assert evaluate_server(client, [*fewer, *renamed], k=2, methods=["ret"]).queries == len(fewer)
        with pytest.raises(BadSearch, match="none can be right"):
            evaluate_server(client, renamed)


def test_the_command_measures_a_server_and_takes_sources_in_turns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_class_folders(tmp_path / "data", seeds=range(4), shapes=("star", "house"))
    weights = tiny_checkpoint(tmp_path / "tiny.safetensors")
    build([tmp_path / "data" / "photo"], tmp_path / "index", model.load(weights), embedder="ret")
    command = ["evaluate", "--data", str(tmp_path / "data"), "--per-class", "2", "--k", "3", "--json"]
    settings = Settings(index=tmp_path / "index", weights=weights, api_key=SecretStr("secret"))
    with served(settings) as server:
        assert main([*command, "--url", server.url]) == 2
        assert "API key" in capsys.readouterr().err
        assert main([*command, "--url", server.url, "--api-key", "secret"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["queries"] == 4
    assert set(result["searches"]) == {"auto", "rn", "ret"}
    assert main([*command, "--url", server.url]) == 2
    assert "does not answer" in capsys.readouterr().err
