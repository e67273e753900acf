import dataclasses
import json
import math
import os
import signal
from collections import Counter
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

from sketch_search.model.engine import SeenClasses
from sketch_search.model.errors import ModelError
from sketch_search.model.torch import RetNetwork
from sketch_search.training.corpus import Corpus, Picture
from sketch_search.training.papers.clip_at import ClipAtRecipe
from sketch_search.training.papers.recipe import RECIPES
from sketch_search.training.papers.sketch_an_anchor import AnchorRecipe
from sketch_search.training.papers.tables import read_recipe
from sketch_search.training.papers.trainer import Run, Trainer, check_validation, run_steps
from sketch_search.training.papers.two_sided import TwoSidedRecipe
from sketch_search.training.papers.zse import ZseOptimiser, ZseRecipe


def asked(folder: Path, patience: int | None = None) -> Run:
    return Run(Path("r.toml"), "vit", folder, folder / "out", keep="best", patience=patience)


class Fitting(Trainer[nn.Linear]):
    """Fits random numbers; a step may get a signal."""

    def __init__(
        self, folder: Path, recipe: ZseRecipe, origin: str = "a", signals: dict[int, int] | None = None
    ) -> None:
        self.signals = signals or {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = nn.Linear(3, 2)
        super().__init__(recipe, network, folder, origin)
        self.dtype = torch.bfloat16

    @property
    def trained(self) -> RetNetwork:
        raise NotImplementedError

    def make_optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW([{"params": list(self.network.parameters()), "rate": 0.1}])

    def losses(self) -> dict[str, torch.Tensor]:
        if self.step in self.signals:
            os.kill(os.getpid(), self.signals[self.step])
        with self.autocast():
            made = self.network(torch.randn(5, 3))
        return {"fit": made.float().square().mean(), "size": 0.1 * self.network.weight.square().sum()}


def values(loop: Fitting) -> list[torch.Tensor]:
    return [*loop.network.parameters(), *loop.average.parameters()]


def steps_of(loop: Fitting) -> list[int]:
    return [json.loads(line)["step"] for line in loop.log_path.read_text().splitlines()]


OPTIMISER = ZseOptimiser(warmup=2, last=0.1, average=0.5, clip=1.0)
RECIPE = ZseRecipe(preset="zse-ti16", steps=7, seed=3, optimiser=OPTIMISER, save_every=3, evaluate_every=3)


def test_a_stopped_or_killed_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole = Fitting(tmp_path / "whole", RECIPE)
    whole.run()
    for stop in (1, 4, 5):
        Fitting(tmp_path / "parts", RECIPE).run(until=stop)
    with (tmp_path / "parts" / "log.jsonl").open("a") as log:
        log.write('{"step": 6}\n{"step": 7, "fi')  # as a kill after the last save leaves it
    parts = Fitting(tmp_path / "parts", RECIPE)
    assert parts.step == 5
    parts.run(until=5)
    assert steps_of(parts) == [1, 2, 3, 4, 5]
    parts.run()
    assert steps_of(parts) == steps_of(whole) == list(range(1, 8))
    assert all(torch.equal(one, other) for one, other in zip(values(whole), values(parts), strict=True))
    with pytest.raises(ModelError, match="belongs to another recipe, backbone, start or data; name another folder"):
        Fitting(tmp_path / "parts", RECIPE, origin="b")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_saves_the_state_and_acts_as_usual(number: int, tmp_path: Path) -> None:
    before = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            Fitting(tmp_path, RECIPE, signals={1: number}).run()
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
    rest = Fitting(tmp_path, RECIPE)
    assert (rest.step, steps_of(rest)) == (2, [1, 2])


class Judged(Fitting):
    scripted: ClassVar = {2: 0.1, 4: 0.5, 6: 0.3, 8: 0.4, 10: 0.6}

    def figures(self, validation: Corpus) -> dict[str, float]:
        return {"val_rn": self.scripted[self.step], "val_ret": 0.0}


EVEN = dataclasses.replace(RECIPE, steps=10, evaluate_every=2)
SOME = Corpus((), ())


def test_the_best_step_on_the_validation_classes_is_kept_also_of_a_training_that_was_stopped(tmp_path: Path) -> None:
    plain = Judged(tmp_path / "plain", EVEN)
    plain.run(until=4)
    run = asked(tmp_path / "best")
    assert not run_steps(Judged(run.folder, EVEN), dataclasses.replace(run, until=5), SOME)
    # Killed since it was best, before a state was saved.
    (run.folder / "state.pt").unlink()
    loop = Judged(run.folder, EVEN)
    assert not run_steps(loop, dataclasses.replace(run, until=8), SOME)
    assert loop.step == 8
    loop.take_best()
    assert (loop.step, loop.best()) == (4, (4, 0.5))
    assert all(torch.equal(one, other) for one, other in zip(values(loop), values(plain), strict=True))
    loop = Judged(run.folder, EVEN)
    assert run_steps(loop, run, SOME)
    assert loop.step == 10
    with pytest.raises(ModelError, match="keeps no best step; train with --keep best"):
        plain.take_best()


def test_a_training_ends_once_its_patience_does_and_continues_with_more(tmp_path: Path) -> None:
    run = asked(tmp_path, patience=2)
    loop = Judged(tmp_path, EVEN)
    assert run_steps(loop, run, SOME)
    assert (loop.step, steps_of(loop)) == (4, list(range(1, 9)))
    assert loop.notes(run, SeenClasses(frozenset()))["origin"] == "trained by recipe r.toml from vit, step 4 of 10"
    loop = Judged(tmp_path, EVEN)
    assert run_steps(loop, dataclasses.replace(run, patience=3), SOME)
    assert (loop.step, len(steps_of(loop))) == (10, 10)
    with pytest.raises(ModelError, match='leave "val" out'):
        run_steps(loop, run, None)


def test_fewer_than_three_validation_classes_choose_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    halves = [Picture(tmp_path / "1.png", label, "") for label in ("ant", "bee", "cow")]
    run = asked(tmp_path)
    check_validation(RECIPE, run, Corpus(tuple(halves), tuple(halves)))
    few = Corpus(tuple(halves), tuple(halves[:1]))
    with pytest.raises(ModelError, match=r"has 1 of the 3 classes .*; or leave --keep best and --patience out"):
        check_validation(RECIPE, run, few)
    assert not capsys.readouterr().out
    check_validation(RECIPE, dataclasses.replace(run, keep="last"), few)
    assert "best method and its weights mean nothing now" in capsys.readouterr().out


def test_a_training_that_diverges_is_stopped_with_a_sentence(tmp_path: Path) -> None:
    loop = Fitting(tmp_path, RECIPE)
    nn.init.constant_(loop.network.weight, math.inf)
    with pytest.raises(ModelError, match="training diverged at step 0; lower the learning rates"):
        loop.run()
    assert not loop.state_path.exists()


ZSE = 'preset = "zse-ti16"\nsteps = 1\n'
ANCHORS = (
    'method = "sketch-an-anchor"\nbackbone = "vit_tiny_patch16_224"\nsteps = 4\nbatch = 3\n'
    "[network]\nimage_size = 64\nunits = 40\n"
)
CLIP_AT = 'method = "clip-at"\nbackbone = "clip"\nsteps = 4\nbatch = 4\ncategories = 2\n'


def test_the_committed_recipes_can_be_read() -> None:
    files = [path for path in RECIPES.rglob("*.toml") if path.parent.name != "tables"]
    found = {path.relative_to(RECIPES).with_suffix(""): path for path in files}
    recipes = {name: read_recipe(path) for name, path in found.items()}
    assert Counter(map(type, recipes.values())) == {ZseRecipe: 7, TwoSidedRecipe: 13, AnchorRecipe: 7, ClipAtRecipe: 4}
    assert all(recipe.steps > 0 for recipe in recipes.values())
    assert read_recipe(Path("clip-at/category")) == recipes[Path("clip-at/category")]


def test_a_recipe_may_be_another_one_of_a_file_or_of_the_program_with_changes(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(
        'preset = "zse-ti16"\nseed = 3\nsteps = 5\n[network]\ndropout = 0.0\n[samples]\ncount = 4\n'
    )
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "row.toml").write_text(
        'base = "../base.toml"\nseed = 4\n[network]\ncross_ffn = 64\n[samples]\nrelation = 0.0\n'
    )
    base, row = (read_recipe(tmp_path / name) for name in ("base.toml", "rows/row.toml"))
    changed = {"dropout": 0.0, "cross_ffn": 64}
    assert isinstance(base, ZseRecipe)
    fewer = dataclasses.replace(base.samples, relation=0.0)
    assert row == dataclasses.replace(base, seed=4, network=changed, samples=fewer)
    assert (base.methods, row.methods) == (("rn", "ret"), ("ret",))
    (tmp_path / "slow.toml").write_text('base = "two-sided/own"\n[optimiser]\ntuning_rate = 1e-6\n')
    own = read_recipe(Path("two-sided/own"))
    assert isinstance(own, TwoSidedRecipe)
    slow = dataclasses.replace(own.optimiser, tuning_rate=1e-6)
    assert read_recipe(tmp_path / "slow.toml") == dataclasses.replace(own, optimiser=slow)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("preset = ", "not a usable training recipe"),
        ("seed = 1", "preset: Field required"),
        ('method = "magic"', "there is no method 'magic'"),
        ('split = ["unseen"]\n' + ZSE, "only together with"),
        (ZSE + "[network]\ncolour = 1", "has unknown fields (colour)"),
        (ZSE + "[network]\nmean = [0.0, 0.0, 0.0]", r"[network] may not set mean"),
        (ZSE + "[samples]\nrelation = 0.0\ntriplet = 0.0\n", "all losses are switched off"),
        ("speed = 9\n" + ZSE, "not a usable training recipe: speed"),
        (ZSE.replace("zse-ti16", "vgg"), "there is no preset"),
        ('base = "nobody"', "there is no recipe nobody"),
        ('base = "nobody.toml"', "No such file"),
        ('base = "recipe.toml"', "it is its own base"),
        ('base = "two-sided/own"\nclasses = "many"', "classes: Input should be a valid integer"),
        ('base = "zse/tiny"\n[network]\nimage_size = 100', "image_size 100 is not a multiple of patch_size 16"),
        ('base = "zse/tiny"\n# \udce9', "not a usable training recipe: 'utf-8' codec"),
        (ANCHORS.replace("vit_tiny_patch16_224", "resnet50"), "resnet50"),
        (ANCHORS.replace("vit_tiny_patch16_224", "hf-hub:some/where"), "timm has no architecture 'hf-hub:some/where'"),
        (ANCHORS.replace("units = 40", 'units = 40\nanchors = ["visual", "word"]'), "in this order"),
        (ANCHORS + "[network.sizes]\ncolour = 1\n", "cannot be built"),
        (CLIP_AT + "[losses]\ntriplet = 0.0\nclasses = 0.0\n", "all losses are switched off"),
        (CLIP_AT.replace("batch = 4", 'batch = 5\nlevel = "fine-grained"'), "with 2 pairs or more of each"),
        (CLIP_AT + "[network]\nshared_norms = true\n", "[network] may not set shared_norms"),
    ],
    ids=lambda value: value[-40:] if isinstance(value, str) else "",
)
def test_a_mistake_in_a_recipe_is_named(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelError) as refused:
        read_recipe(path)
    assert sentence in str(refused.value)
