from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model.checkpoint.file import read_metadata
from model.commands import main
from model.datasets.corpus import Corpus
from model.errors import ModelError
from model.evaluation import measure, score_matrices
from model.papers.pictures import SIDE, Augmentation, TrainingSet, training_set
from model.papers.recipe import Weights, ZseOptimiser
from model.papers.zse.objectives import bank_loss, calibration_loss, listwise_loss
from model.papers.zse.teacher import Teacher
from model.papers.zse.trainer import ZseTrainer
from model.training import DIFFUSIONS, calibrated, trained_matcher
from tests.learning import small_backbone, small_recipe, write_class_folders, write_patterns

SMALL_RECIPE = (
    'preset = "zse-ti16"\nbf16 = false\nsteps = 4\nclasses = 3\n'
    "[network]\nwidth = 32\ndepth = 4\nheads = 2\nmlp_ratio = 2.0\ntokenizer_widths = [4, 8, 16]\n"
    "select_after = [1, 2]\ncross_heads = 2\ncross_ffn = 32\nimage_size = 64\n"
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_class_folders(tmp_path_factory.mktemp("training"), seeds=range(6))


@pytest.fixture(scope="module")
def data(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    return training_set(corpus, tmp_path_factory.mktemp("pixels"))


@pytest.fixture(scope="module")
def backbone() -> dict[str, torch.Tensor]:
    return small_backbone()


def test_training_lowers_the_loss_and_finds_pictures_it_never_saw_better(
    backbone: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    data = training_set(write_patterns(tmp_path / "seen", seeds=range(12)), tmp_path / "pixels")
    fresh = write_patterns(tmp_path / "fresh", seeds=range(100, 106))
    recipe = dataclasses.replace(
        small_recipe(60),
        # The beliefs of a random teacher are not worth learning.
        weights=Weights(bank=1.0, labels=0.0, teacher=0.0, relation=1.0),
        optimiser=ZseOptimiser(encoder_rate=4e-3, head_rate=8e-3, warmup=5, average=0.9),
    )
    trainer = ZseTrainer(recipe, data, backbone, tmp_path / "run")
    before = measure(fresh, score_matrices(trained_matcher(trainer.average), fresh))
    trainer.run()
    after = measure(fresh, score_matrices(trained_matcher(trainer.average), fresh))
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]

    def total(entries: list[dict[str, float]]) -> float:
        return sum(entry[name] for entry in entries for name in ("bank", "relation"))

    assert total(log[-10:]) < 0.9 * total(log[:10])
    for method in ("ret", "rn"):
        assert after.figures[method]["all"]["map_all"] > before.figures[method]["all"]["map_all"] + 0.1


def test_a_stopped_training_goes_on_exactly_where_it_was(
    data: TrainingSet, backbone: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    recipe = dataclasses.replace(small_recipe(6), save_every=2)
    whole = ZseTrainer(recipe, data, backbone, tmp_path / "whole")
    whole.run()
    for stop in (1, 3, 5, 6):
        ZseTrainer(recipe, data, backbone, tmp_path / "parts").run(until=stop)
    with (tmp_path / "parts" / "log.jsonl").open("a") as log:
        log.write('{"step": 7}\n{"step": 8, "ba')  # as a kill after the last save leaves it
    parts = ZseTrainer(recipe, data, backbone, tmp_path / "parts")
    assert parts.step == whole.step == 6
    logs = [[json.loads(line) for line in run.log_path.read_text().splitlines()] for run in (whole, parts)]
    assert [entry["step"] for entry in logs[1]] == list(range(1, 7))
    assert [entry["bank"] for entry in logs[0]] == [entry["bank"] for entry in logs[1]]
    for one, other in ((whole.network, parts.network), (whole.average, parts.average)):
        state = other.state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in one.state_dict().items())


def test_a_state_of_another_recipe_or_backbone_is_not_gone_on_with(
    data: TrainingSet, backbone: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    ZseTrainer(small_recipe(1), data, backbone, tmp_path).run()
    for recipe, weights in ((small_recipe(2), backbone), (small_recipe(1), small_backbone(seed=1))):
        with pytest.raises(ModelError, match="belongs to another recipe, backbone or data"):
            ZseTrainer(recipe, data, weights, tmp_path)


def test_a_class_without_photos_cannot_be_trained_on(corpus: Corpus, tmp_path: Path) -> None:
    lacking = Corpus(corpus.sketches, tuple(p for p in corpus.photos if p.label != "star"))
    with pytest.raises(
        ModelError, match="there are no photos of star; every class that is trained on needs sketches and photos"
    ):
        training_set(lacking, tmp_path)


def test_a_trained_network_is_offered_with_the_method_that_is_best_on_validation(
    corpus: Corpus, data: TrainingSet, backbone: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    trainer = ZseTrainer(small_recipe(2), data, backbone, tmp_path)
    trainer.run()
    network, figures = calibrated(trainer.average, corpus)
    chosen = network.calibration
    best = chosen.best_method
    assert set(chosen.methods) == {"rn", "ret", "fused"}
    assert set(figures) == {"rn", "ret", "fused", f"{best}+diffusion"}
    assert figures[best] == max(figures[method] for method in chosen.methods)
    assert chosen.fusion is not None
    assert chosen.diffusion in DIFFUSIONS


def test_the_command_trains_stops_goes_on_and_evaluates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_class_folders(tmp_path / "data", seeds=range(2))
    save_file(small_backbone(), tmp_path / "vit.safetensors")
    recipe = tmp_path / "small.toml"
    recipe.write_text(SMALL_RECIPE)
    command = ["train", str(recipe), "--backbone", str(tmp_path / "vit.safetensors"), "--data", str(tmp_path / "data")]
    command += ["--run", str(tmp_path / "run"), "--out", str(tmp_path / "out.safetensors")]
    assert main([*command, "--until", "2"]) == 0
    assert "stopped at step 2 of 4" in capsys.readouterr().out
    assert main(command) == 0
    assert "wrote" in capsys.readouterr().out
    measure = ["evaluate", "--weights", str(tmp_path / "out.safetensors"), "--data", str(tmp_path / "data")]
    assert main([*measure, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    methods = {"rn", "ret", "fused"}
    assert set(result["methods"]) == methods | {f"{method}+diffusion" for method in methods}
    assert set(result["methods"]["rn"]["all"]) == {"map_all", "map_200", "precision_100", "precision_200"}
    assert main(measure) == 0
    assert "mAP@all" in capsys.readouterr().out
    assert read_metadata(tmp_path / "out.safetensors")["origin"].endswith("from vit.safetensors")
    assert main([*command, "--start", str(tmp_path / "out.safetensors"), "--run", str(tmp_path / "more")]) == 2
    assert "ZSE-SBIR starts from a backbone alone" in capsys.readouterr().err


def teacher(seed: int = 0) -> Teacher:
    generator = torch.Generator().manual_seed(seed)
    features = torch.nn.functional.normalize(torch.randn(9, 4, generator=generator), dim=1)
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2])
    beliefs = torch.randn(9, 5, generator=generator).softmax(dim=1)
    return Teacher(features, labels, beliefs, torch.randn(5, 4, generator=generator), torch.zeros(5))


def test_the_bank_loss_is_the_cross_entropy_of_mean_class_similarity() -> None:
    ret, bank = torch.randn(3, 4, generator=torch.Generator().manual_seed(1)), teacher()
    labels = torch.tensor([2, 0, 1])
    expected = []
    for row, label in zip(torch.nn.functional.normalize(ret, dim=1), labels, strict=True):
        means = []
        for number in range(3):
            photos = bank.features[bank.labels == number]
            means.append(sum(float(torch.exp(row @ photo / 0.1)) for photo in photos) / len(photos))
        expected.append(-torch.log(torch.tensor(means[int(label)] / sum(means))))
    torch.testing.assert_close(bank_loss(ret, labels, bank, 0.1), torch.stack(expected).mean())


def test_the_listwise_loss_reads_rows_and_columns_and_ignores_a_constant() -> None:
    logits = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
    rows = -(torch.log_softmax(logits, 1).diagonal().mean())
    columns = -(torch.log_softmax(logits, 0).diagonal().mean())
    torch.testing.assert_close(listwise_loss(logits), (rows + columns) / 2)
    torch.testing.assert_close(listwise_loss(logits + 7), listwise_loss(logits))


def test_the_calibration_loss_moves_the_bias_alone() -> None:
    logits, bias = torch.randn(3, 3, requires_grad=True), torch.tensor(0.5, requires_grad=True)
    torch.autograd.backward(calibration_loss(logits + bias, bias))
    assert logits.grad is None
    assert bias.grad is not None
    assert bias.grad != 0


def test_variations_stay_in_range_and_follow_from_their_seed(data: TrainingSet) -> None:
    ink = 1 - data.sketches[:5].float() / 255
    photos = data.photos[:5].float() / 255
    results = []
    for seed in (1, 1, 2):
        vary = Augmentation(seed)
        results.append([vary.sketches(ink), vary.photos(photos)])
    for made in results[0]:
        assert made.shape[-2:] == (SIDE, SIDE)
        assert 0 <= float(made.min()) < float(made.max()) <= 1.0001
    assert all(torch.equal(a, b) for a, b in zip(results[0], results[1], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(results[0], results[2], strict=True))
