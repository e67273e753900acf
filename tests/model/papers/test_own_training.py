"""The way of docs/training.md, in small: from folders of one's own pictures to a network, its index and a search."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from indexer import open_index
from indexer.commands import main as indexer
from model.checkpoint.file import load_network, save_checkpoint
from model.commands import main
from model.datasets.further import Further
from model.matcher import load
from model.network.backbone import from_backbone
from model.network.calibration import Calibration
from model.network.zse import Network
from model.papers.pictures import training_corpora
from model.papers.recipe import ZseRecipe, read_recipe
from model.papers.zse.prior import with_prior
from tests.learning import NETWORK, small_backbone, toml, write_class_folders
from tests.pictures import SHAPES

CHOSEN = Calibration(("rn", "ret", "fused"), "fused", fusion=2.0, diffusion=0.3)
FEW = SHAPES[:4]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, a backbone, a recipe on top of ``own``, and a network of its size to start from."""
    folder = tmp_path_factory.mktemp("own") / "work"
    write_class_folders(folder / "mine", seeds=range(3), shapes=FEW)
    write_class_folders(folder / "test", seeds=range(10, 12), shapes=FEW)
    save_file(small_backbone(), folder / "vit.safetensors")
    (folder / "my.toml").write_text(
        'base = "own"\nbf16 = false\n'
        f"[[phases]]\nimage_size = 48\nsteps = 2\n[[phases]]\nimage_size = 64\nsteps = 1\n[network]\n{toml(NETWORK)}\n"
    )
    save_checkpoint(start(folder), folder / "start.safetensors")
    return folder


@pytest.fixture
def work(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in which the test runs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("SBIR_WEIGHTS", "SBIR_INDEX", "SKETCH_SEARCH_DATA"):
        monkeypatch.delenv(name, raising=False)
    folder = shutil.copytree(prepared, tmp_path / "work")
    monkeypatch.chdir(folder)
    return folder


def start(folder: Path) -> Network:
    """An untrained network such as the recipe trains, with a calibration and a prior."""
    recipe = read_recipe(folder / "my.toml", ZseRecipe)
    plain = from_backbone(recipe.config(64), small_backbone()).with_calibration(CHOSEN)
    return with_prior(plain, training_corpora(folder / "mine", recipe).training, Further(), 1.5, 8.0)


TRAIN = ["train", "my.toml", "--data", "mine", "--start", "start.safetensors", "--backbone", "vit.safetensors"]


def test_pictures_of_one_s_own_become_a_network_an_index_and_a_search(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--data", "test", "--weights", "start.safetensors", "--by-class"]) == 0
    table = capsys.readouterr().out
    assert "P@10" in table
    assert all(f"{shape} (2)" in table for shape in FEW)
    assert main([*TRAIN, "--until", "2"]) == 0
    assert "12 sketches and 12 photos of 4 classes" in (out := capsys.readouterr().out)
    assert "stopped at step 2 of 3; the same command continues from here" in out
    assert main(TRAIN) == 0
    trained = work / "runs" / "my" / "final.safetensors"
    assert "wrote runs/my/final.safetensors" in capsys.readouterr().out
    assert [json.loads(line)["step"] for line in (trained.parent / "log.jsonl").read_text().splitlines()] == [1, 2, 3]

    before, after = load_network(work / "start.safetensors"), load_network(trained)
    assert (after.config.image_size, after.calibration) == (64, CHOSEN)
    assert not torch.equal(before.state_dict()["encoder.ret"], after.state_dict()["encoder.ret"])
    assert before.prior is not None
    assert after.prior is not None, "what the start was trained on still hides new things"
    assert after.prior.relation_weight == 8.0
    torch.testing.assert_close(after.prior.prototypes, before.prior.prototypes, atol=1e-3, rtol=0)

    assert main(["evaluate", "--data", "test", "--weights", str(trained), "--by-class", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["methods"]["fused+diffusion"]
    assert set(figures) == {"all", *FEW}
    assert indexer(["build", "test/photo", "--weights", str(trained), "--index", "own-index", "--quiet"]) == 0
    matcher = load(trained)
    assert matcher.photo_sha256 == open_index(work / "own-index", matcher).manifest.photo_sha256


def test_of_many_classes_some_can_be_left_for_the_calibration(work: Path) -> None:
    write_class_folders(work / "mine", seeds=range(2))
    recipe = read_recipe(work / "my.toml", ZseRecipe)
    everything = training_corpora(work / "mine", recipe)
    assert (everything.training.labels, everything.validation) == (tuple(sorted(SHAPES)), None)
    some = training_corpora(work / "mine", dataclasses.replace(recipe, split=("train",)))
    assert some.validation is not None
    assert some.validation.labels == tuple(sorted(SHAPES))[::5]
    assert set(some.training.labels) | set(some.validation.labels) == set(SHAPES)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"my.toml": "mine.toml"}, "there is no recipe mine.toml; name a file that ends in .toml, or one of default"),
        ({"my.toml": "mine"}, "there is no recipe mine; "),
        ({"mine": "nothing"}, "nothing holds neither sketch/<class>/ nor photo/<class>/ folders"),
        ({"mine": "one"}, "one has too few classes to train on (star), beside 0 for validation; at least 2 are needed"),
        ({"mine": "lacking"}, "there are no photos of star; every class that is trained on needs sketches and photos"),
        ({"start.safetensors": "tiny.safetensors"}, "there is no checkpoint at tiny.safetensors"),
        ({"vit.safetensors": "other.safetensors"}, "is neither a safetensors file nor a timm model tag"),
        (
            {"TARGET": "nowhere/out.safetensors"},
            "there is no folder nowhere to write out.safetensors to; make it first",
        ),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else "",
)
def test_what_is_missing_is_said_before_anything_is_computed(
    changes: dict[str, str], sentence: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_class_folders(work / "one", seeds=range(1), shapes=("star",))
    write_class_folders(work / "lacking", seeds=range(1), shapes=("circle", "star"))
    (work / "lacking" / "photo" / "star").rename(work / "lacking" / "photo" / "stars")
    for picture in (work / "lacking" / "photo" / "stars").iterdir():
        picture.unlink()
    command = [*TRAIN, "--out", "TARGET"] if "TARGET" in changes else TRAIN
    assert main([changes.get(word, word) for word in command]) == 2
    out, err = capsys.readouterr()
    assert (out.count("\n") <= 1, err.count("\n")) == (True, 1)
    assert sentence in err
    assert not list((work / "runs").glob("*/log.jsonl"))


@pytest.mark.usefixtures("work")
def test_figures_by_class_do_not_go_with_comparisons(capsys: pytest.CaptureFixture[str]) -> None:
    evaluate = ["evaluate", "--data", "test", "--weights", "start.safetensors", "--by-class"]
    for more in (["--intervals", "queries"], ["--keep", "0.5"], ["--protocol", "fine-grained"]):
        assert main([*evaluate, *more]) == 2
        assert "--by-class" in capsys.readouterr().err
