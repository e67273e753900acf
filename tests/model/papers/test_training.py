from __future__ import annotations

import dataclasses
import json
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from model.checkpoint.file import load_network, read_metadata
from model.commands import main
from model.datasets.corpus import DATA_VARIABLE, Corpus, read_data
from model.datasets.fresh import split_fresh
from model.errors import ModelError
from model.evaluation.categories import evaluate
from model.network.backbone import POSITION, resized
from model.network.calibration import Calibration
from model.papers.pictures import SIDE, Augmentation, TrainingSet, training_corpora, training_set
from model.papers.recipe import Batch, Phase, Weights, ZseOptimiser
from model.papers.zse.objectives import bank_loss, calibration_loss, contrast_loss, instance_loss, listwise_loss
from model.papers.zse.teacher import Teacher
from model.papers.zse.trainer import ZseTrainer
from model.training.calibration import DIFFUSIONS, calibrated, trained_matcher
from tests.learning import small_backbone, small_recipe, write_class_folders, write_patterns
from tests.networks import tiny_checkpoint, tiny_config, tiny_network
from tests.pictures import SHAPES

SMALL_RECIPE = 'preset = "zse-ti16"\nbf16 = false\n'
SMALL_TABLES = (
    "[network]\nwidth = 32\ndepth = 4\nheads = 2\nmlp_ratio = 2.0\ntokenizer_widths = [4, 8, 16]\n"
    "select_after = [1, 2]\ncross_heads = 2\ncross_ffn = 32\n"
    "[[phases]]\nimage_size = 64\nsteps = 4\n[batch]\nclasses = 3\ndrawn = 2\n"
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


@pytest.mark.usefixtures("with_curve")
def test_training_lowers_the_loss_and_finds_pictures_it_never_saw_better(
    backbone: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    data = training_set(write_patterns(tmp_path / "seen", seeds=range(12)), tmp_path / "pixels")
    fresh = write_patterns(tmp_path / "fresh", seeds=range(100, 106))
    recipe = dataclasses.replace(
        small_recipe((64, 60)),
        # What a random teacher believes is not worth learning.
        weights=Weights(bank=1.0, labels=0.0, teacher=0.0, relation=1.0),
        batch=Batch(classes=6, near=0.0, sketches=1, drawn=0),
        optimiser=ZseOptimiser(encoder_rate=4e-3, head_rate=8e-3, warmup=5, average=0.9),
    )
    trainer = ZseTrainer(recipe, data, backbone, tmp_path / "run")
    before = evaluate(trained_matcher(trainer.average), fresh)
    trainer.run()
    after = evaluate(trained_matcher(trainer.average), fresh)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]

    def total(entries: list[dict[str, float]]) -> float:
        return sum(entry[name] for entry in entries for name in ("bank", "relation"))

    assert total(log[-10:]) < 0.9 * total(log[:10])
    with Image.open(tmp_path / "run" / "curve.png") as curve:
        assert curve.width > curve.height
    for method in ("ret", "rn"):
        assert after.methods[method].overall.map_all > before.methods[method].overall.map_all + 0.1


def test_a_stopped_training_goes_on_exactly_where_it_was(
    data: TrainingSet, backbone: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    recipe = dataclasses.replace(small_recipe((48, 3), (64, 3)), save_every=2)
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
    ZseTrainer(small_recipe((64, 1)), data, backbone, tmp_path).run()
    for recipe, weights in ((small_recipe((64, 2)), backbone), (small_recipe((64, 1)), small_backbone(seed=1))):
        with pytest.raises(ModelError, match="belongs to another recipe, backbone or data"):
            ZseTrainer(recipe, data, weights, tmp_path)


def test_a_class_without_photos_cannot_be_trained_on(corpus: Corpus, tmp_path: Path) -> None:
    lacking = Corpus(corpus.sketches, tuple(p for p in corpus.photos if p.label != "star"))
    with pytest.raises(
        ModelError, match="there are no photos of star; every class that is trained on needs sketches and photos"
    ):
        training_set(lacking, tmp_path)


def test_a_frozen_phase_leaves_the_encoder_alone(
    data: TrainingSet, backbone: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    recipe = dataclasses.replace(small_recipe((64, 3)), phases=(Phase(64, 3, encoder=False),))
    trainer = ZseTrainer(recipe, data, backbone, tmp_path)
    before = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    trainer.run()
    changed = {n for n, tensor in trainer.network.state_dict().items() if not torch.equal(tensor, before[n])}
    assert changed
    assert not any(name.startswith("encoder.") for name in changed)


def test_a_training_begins_with_a_checkpoint_of_any_input_size_and_refuses_another_network(
    data: TrainingSet, backbone: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    first = ZseTrainer(small_recipe((64, 2)), data, backbone, tmp_path / "first")
    first.run()
    same = ZseTrainer(small_recipe((64, 2)), data, backbone, tmp_path / "same", first.average)
    for name, tensor in first.average.state_dict().items():
        assert torch.equal(same.network.state_dict()[name], tensor)
    assert same.origin != first.origin
    larger = ZseTrainer(small_recipe((96, 1)), data, backbone, tmp_path / "larger", first.average)
    larger.run()
    assert larger.network.config.image_size == 96
    with pytest.raises(ModelError, match=r"\(tiny-random\) is not the recipe's \(zse-ti16\)"):
        ZseTrainer(small_recipe((64, 2)), data, backbone, tmp_path / "other", tiny_network(width=16))


def test_a_trained_network_is_offered_with_the_method_that_is_best_on_validation(
    corpus: Corpus, data: TrainingSet, backbone: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    trainer = ZseTrainer(small_recipe((64, 2)), data, backbone, tmp_path)
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
    recipe.write_text(SMALL_RECIPE + SMALL_TABLES)
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
    assert set(result["methods"]["rn"]) == {"map_all", "map_200", "precision_100", "precision_200"}
    assert main(measure) == 0
    assert "mAP@all" in capsys.readouterr().out
    further = ["train", str(recipe), *command[2:-4], "--start", str(tmp_path / "out.safetensors")]
    assert main([*further, "--run", str(tmp_path / "more"), "--out", str(tmp_path / "more.safetensors")]) == 0
    assert read_metadata(tmp_path / "more.safetensors")["origin"].endswith("from out.safetensors")


def test_a_training_on_all_but_the_unseen_classes_keeps_the_choices_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    write_class_folders(tmp_path / "shapes", seeds=range(6))
    (tmp_path / "data").mkdir()
    with tarfile.open(tmp_path / "data" / "shapes.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "shapes", "shapes")
    named = {"train": SHAPES[:2], "val": SHAPES[2:3], "unseen": SHAPES[3:4]}
    (tmp_path / "data" / "split.json").write_text(json.dumps(named))
    recipe_of_all = dataclasses.replace(small_recipe((64, 1)), split=("train", "val", "thin"))
    pictures = training_corpora(None, recipe_of_all)
    training = pictures.training
    assert pictures.validation is None
    assert set(training.labels) == set(SHAPES) - set(named["unseen"])
    whole = read_data(tmp_path).of(training.labels)
    assert training == split_fresh(whole)[0] != whole, "no training sees the fresh pictures"
    pictures = training_corpora(None, small_recipe((64, 1)))
    assert pictures.validation
    assert (set(pictures.training.labels), pictures.validation.labels) == (set(SHAPES[:2]), SHAPES[2:3])

    recipe = tmp_path / "all.toml"
    recipe.write_text(SMALL_RECIPE + 'split = ["train", "val", "thin"]\n' + SMALL_TABLES)
    save_file(small_backbone(), tmp_path / "vit.safetensors")
    command = ["train", str(recipe), "--backbone", str(tmp_path / "vit.safetensors"), "--run", str(tmp_path / "run")]
    assert main(command) == 2
    assert "needs --start" in capsys.readouterr().err
    chosen = Calibration(("rn", "ret", "fused"), "fused", fusion=2.0, diffusion=0.3)
    start = tiny_checkpoint(tmp_path / "start.safetensors", **dataclasses.asdict(chosen))
    assert main([*command, "--start", str(start)]) == 0
    assert load_network(tmp_path / "run" / "final.safetensors").calibration == chosen


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


def test_the_instance_loss_is_least_at_the_photo_itself() -> None:
    bank = teacher()
    losses = [float(instance_loss(bank.features[3:4], torch.tensor([row]), bank, 0.1)) for row in range(9)]
    assert min(range(9), key=losses.__getitem__) == 3


def test_the_listwise_loss_reads_rows_and_columns_and_ignores_a_constant() -> None:
    logits = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
    rows = -(torch.log_softmax(logits, 1).diagonal().mean())
    columns = -(torch.log_softmax(logits, 0).diagonal().mean())
    torch.testing.assert_close(listwise_loss(logits), (rows + columns) / 2)
    torch.testing.assert_close(listwise_loss(logits + 7), listwise_loss(logits))


def test_the_contrast_loss_compares_each_sketch_of_a_class_with_the_batchs_photos() -> None:
    photos = torch.eye(3)
    sketches = photos.repeat_interleave(2, dim=0)
    assert float(contrast_loss(sketches, photos, 0.1)) < 1e-3
    wrong = sketches.clone()
    wrong[3] = photos[0]  # the second sketch of the second class
    firsts, seconds = (listwise_loss(wrong[turn::2] @ photos.T / 0.1) for turn in (0, 1))
    torch.testing.assert_close(contrast_loss(wrong, photos, 0.1), (firsts + seconds) / 2)
    assert seconds > firsts + 1


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
        results.append([vary.sketches(ink), vary.photos(photos), vary.drawn(photos)])
    for made in results[0]:
        assert made.shape[-2:] == (SIDE, SIDE)
        assert 0 <= float(made.min()) < float(made.max()) <= 1.0001
    assert all(torch.equal(a, b) for a, b in zip(results[0], results[1], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(results[0], results[2], strict=True))


def test_an_untrained_position_embedding_comes_back_unchanged_from_another_size() -> None:
    network = tiny_network()
    native = network.state_dict()[POSITION].clone()
    there = resized(network, tiny_config(image_size=32), native)
    assert there.config.grid == 2
    back = resized(there, tiny_config(), native)
    torch.testing.assert_close(back.state_dict()[POSITION], native, atol=1e-5, rtol=0)


def test_a_network_tied_to_its_size_cannot_change_it() -> None:
    network = tiny_network(relation="kernel-mlp")
    native = network.state_dict()[POSITION]
    with pytest.raises(ModelError, match="tied to its input size"):
        resized(network, tiny_config(relation="kernel-mlp", image_size=32), native)
