"""The experiments of Sketch-an-Anchor's paper, with small networks on few pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from model.commands import main
from model.matcher import Matcher
from model.metrics import category_metrics
from model.network.tokens import Tokens
from model.papers.comparison.costs import blank_pictures, blank_trainer
from model.papers.comparison.experiments import _within
from model.papers.recipe import AnchorRecipe, ChosenPhotos, Recipe, read_recipe
from model.papers.sketch_an_anchor import chosen_photos
from tests.learning import NETWORK, small_backbone, toml, write_class_folders
from tests.networks import tiny_network
from tests.pictures import SHAPES

SMALL = (
    'method = "sketch-an-anchor"\nbackbone = "vit_tiny_patch16_224"\nsteps = 2\nbatch = 3\nbf16 = false\nseed = 4\n'
    "evaluate_share = 1\n[network]\nimage_size = 64\nunits = 40\nanchors = []\n"
    "[network.sizes]\nembed_dim = 32\ndepth = 4\nnum_heads = 2\nmlp_ratio = 2.0\n"
)
# Five classes for each one that is left out of the training.
CLASSES = SHAPES[:6]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("experiments")
    write_class_folders(folder / "data", seeds=range(3), shapes=CLASSES)
    save_file(small_backbone(), folder / "vit.safetensors")
    (folder / "small.toml").write_text(SMALL)
    return folder


@pytest.fixture
def given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.chdir(folder)
    return ["--recipe", "small.toml", "--backbone", "vit.safetensors", "--data", "data"]


def rows(capsys: pytest.CaptureFixture[str], *command: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["experiment", *command, "--json"]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def test_learning_rates_are_measured_on_the_way_and_once(
    given: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = rows(capsys, "rates", *given, "--rates", "0.001,0.01")
    assert [(row["rate"], row["seed"], [p["step"] for p in row["points"]]) for row in found] == [
        (0.001, 4, [1, 2]),
        (0.01, 4, [1, 2]),
    ]
    # Two of the six classes are for validation, so that a step of three pictures is a quarter of all photos.
    assert [point["epochs"] for point in found[0]["points"]] == [0.25, 0.5]
    recipe = read_recipe(folder / "runs" / "experiments" / "rates" / "rate-0.01.toml", AnchorRecipe)
    assert (recipe.optimiser.rate, recipe.optimiser.last_rate, recipe.steps) == (0.01, 0.01, 2)
    log = folder / "runs" / "experiments" / "rates" / "rate-0.01" / "log.jsonl"
    before = log.stat().st_mtime_ns
    assert main(["experiment", "rates", *given, "--rates", "0.001,0.01"]) == 0
    assert log.stat().st_mtime_ns == before
    assert "| 0.01 | 4 |" in capsys.readouterr().out
    assert "0.001" in (folder / "runs" / "experiments" / "rates" / "rates.svg").read_text()


def test_spaces_are_measured_before_and_after_the_training(
    given: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = rows(capsys, "spaces", *given)
    assert (before["name"], before["network"], after["network"]) == (
        "before",
        "vit_tiny_patch16_224",
        "sketch-an-anchor",
    )
    for row in (before, after):
        assert (row["sketches"], row["photos"], len(row["points"])) == (6, 6, 12)
        assert all(0 < row[kind] <= 1 for kind in ("photo_photo", "sketch_sketch", "sketch_photo"))
    assert before["photo_photo"] != after["photo_photo"]
    trained = folder / "runs" / "experiments" / "spaces" / "trained.safetensors"
    _, same = rows(capsys, "spaces", *given, "--weights", str(trained), "--run", "other")
    assert same == after
    assert main(["experiment", "spaces", *given]) == 0
    assert "6 sketches, 6 photos; mAP@all; t-SNE with seed 0." in capsys.readouterr().out
    assert "sketch to photo" in (folder / "runs" / "experiments" / "spaces" / "spaces.svg").read_text()


def test_a_picture_is_not_asked_to_find_itself() -> None:
    tokens = Tokens.of_ret(torch.randn(5, 32, generator=torch.Generator().manual_seed(0)))
    labels = np.array(["a", "b", "a", "b", "b"])
    matcher = Matcher(tiny_network(), "")
    expected = []
    distances = matcher.ret_distances(tokens, tokens).numpy()
    for query in range(5):
        others = [other for other in range(5) if other != query]
        relevant = np.array([[labels[other] == labels[query] for other in others]])
        expected.append(category_metrics(-distances[[query]][:, others], relevant).map_all)
    assert _within(matcher, tokens, labels) == pytest.approx(sum(expected) / 5)


def test_the_photos_nearest_to_an_anchor_or_farthest_from_it_are_trained_on() -> None:
    data = blank_pictures(2, 4)
    features = torch.nn.functional.normalize(torch.randn(8, 6, generator=torch.Generator().manual_seed(1)), dim=1)
    for farthest in (False, True):
        found = chosen_photos(ChosenPhotos(3, farthest), data, features)
        for own, of_class in zip(found.photo_rows, data.photo_rows, strict=True):
            anchor = sum(features[of_class]) / 4
            order = sorted(of_class.tolist(), key=lambda row: float((features[row] - anchor).norm()), reverse=farthest)
            assert own.tolist() == order[:3]
        assert found.key != data.key
    assert [len(rows) for rows in chosen_photos(ChosenPhotos(9), data, features).photo_rows] == [4, 4]


def test_trainings_on_few_photos_are_measured_beside_one_on_all(
    given: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = rows(capsys, "nearest", *given, "--counts", "1", "--steps", "1")
    assert [(row["name"], row["queries"], row["photos"]) for row in found] == [
        ("all", 6, 6),
        ("nearest-1", 6, 6),
        ("farthest-1", 6, 6),
    ]
    assert len({row["checkpoint_sha256"] for row in found}) == 3
    assert rows(capsys, "nearest", *given, "--counts", "1", "--steps", "1") == found
    assert main(["experiment", "nearest", *given, "--counts", "1", "--steps", "1"]) == 0
    assert "| farthest 1 | 4 |" in capsys.readouterr().out
    assert (folder / "runs" / "experiments" / "nearest" / "nearest.svg").exists()
    assert main(["experiment", "nearest", *given, "--counts", "1"]) == 2
    assert "holds another experiment; name another folder with --run" in capsys.readouterr().err


def test_a_training_is_repeated_with_other_seeds_and_summed_up(
    given: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*given, "--count", "2", "--protocol", "generalised", "--steps", "1"]
    found = rows(capsys, "repeats", *command)
    assert [(row["name"], row["seed"]) for row in found] == [("generalised-seed-4", 4), ("generalised-seed-5", 5)]
    # Of each of the four trained classes, one photo of three is held out.
    assert [(row["queries"], row["photos"]) for row in found] == [(6, 10)] * 2
    values = [row["figures"]["ret"]["map_all"]["value"] for row in found]
    assert main(["experiment", "repeats", *command]) == 0
    said = capsys.readouterr().out
    assert f"| mean | {np.mean(values):.3f} |" in said
    assert f"| standard deviation | {np.std(values, ddof=1):.3f} |" in said
    assert (folder / "runs" / "experiments" / "repeats" / "repeats.svg").exists()


def test_what_does_not_fit_is_refused(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment", "repeats", *given, "--split", "val"]) == 2
    assert "leave it or --data out" in capsys.readouterr().err
    assert main(["experiment", "rates", "--recipe", "paper", "--backbone", "vit.safetensors", "--rates", "0.1"]) == 2
    assert "paper.toml is no recipe of Sketch-an-Anchor" in capsys.readouterr().err


SMALL_ZSE = (
    'preset = "zse-ti16"\nbf16 = false\n[[phases]]\nimage_size = 64\nsteps = 2\n'
    "[batch]\nclasses = 3\nnear = 0.5\nsketches = 2\ndrawn = 1\nlines = 2\nfurther = 1\n"
    "[weights]\ninstances = 0.5\nmates = 0.3\n[network]\n" + toml({**NETWORK, "depth": 2, "select_after": [1]})
)

SMALL_CLIP_AT = (
    'method = "clip-at"\nbackbone = "vit_tiny_patch16_224"\nlevel = "fine-grained"\nbatch = 4\ncategories = 2\n'
    "bf16 = false\n[network]\nimage_size = 64\nprompts = 2\n"
    "[network.sizes]\nembed_dim = 32\ndepth = 2\nnum_heads = 2\nmlp_ratio = 2.0\n"
)


def counted(trainer: Any) -> tuple[int, int]:
    """The multiply-adds of a step that is really computed, to its losses and with the gradients."""
    trainer.prepare()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        losses = trainer.losses()
        forward = counter.get_total_flops() // 2
        torch.autograd.backward(torch.stack(list(losses.values())).sum())
    return forward, counter.get_total_flops() // 2


def test_costs_that_are_counted_without_computing_are_those_of_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    anchors, zse, clip_at = (tmp_path / f"{name}.toml" for name in ("anchors", "zse", "clip-at"))
    anchors.write_text(SMALL.replace("anchors = []", 'anchors = ["word", "visual"]').replace("depth = 4", "depth = 2"))
    zse.write_text(SMALL_ZSE)
    clip_at.write_text(SMALL_CLIP_AT)
    trainers: dict[Path, Any] = {
        path: blank_trainer(read_recipe(path, Recipe), tmp_path / path.stem) for path in (anchors, zse, clip_at)
    }
    monkeypatch.chdir(tmp_path)
    for row in rows(capsys, "costs", *map(str, trainers)):
        trainer, found = trainers[Path(row["recipe"])], row["costs"]
        assert (found["forward_macs"], found["step_macs"]) == counted(trainer)
        if trainer is not trainers[clip_at]:
            assert found["trained_parameters"] == sum(p.numel() for p in trainer.network.parameters())
        assert (found["parameters"] < found["trained_parameters"]) == (trainer is not trainers[zse])
        assert (found["pair_macs"] > 0) == (trainer is trainers[zse])
    assert (tmp_path / "runs" / "experiments" / "costs" / "costs.svg").exists()
