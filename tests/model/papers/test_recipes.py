"""Recipes of all methods: those that are committed, those that name another one, mistakes, and budgets."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from model.errors import ModelError
from model.papers.recipe import (
    RECIPES,
    AnchorRecipe,
    Budget,
    ClipAtRecipe,
    Phase,
    Recipe,
    TwoSidedRecipe,
    ZseRecipe,
    at_budget,
    read_recipe,
)

ZSE = 'preset = "zse-ti16"\n[[phases]]\nimage_size = 64\nsteps = 1\n'
ANCHORS = (
    'method = "sketch-an-anchor"\nbackbone = "vit_tiny_patch16_224"\nsteps = 4\nbatch = 3\n'
    "[network]\nimage_size = 64\nunits = 40\n"
)
CLIP_AT = 'method = "clip-at"\nbackbone = "clip"\nsteps = 4\nbatch = 4\ncategories = 2\n'


def test_the_committed_recipes_can_be_read() -> None:
    found = {path.relative_to(RECIPES).with_suffix(""): path for path in RECIPES.rglob("*.toml")}
    kinds = Counter(type(read_recipe(path, Recipe)) for path in found.values())
    assert kinds == {ZseRecipe: len(found) - 16, TwoSidedRecipe: 4, AnchorRecipe: 7, ClipAtRecipe: 5}
    for name, path in found.items():
        recipe = read_recipe(path, Recipe)
        assert min(recipe.steps, recipe.pictures) > 0
        assert read_recipe(name, Recipe) == recipe


def test_the_rows_of_the_anchors_table_differ_in_their_anchors() -> None:
    found = {path.stem: read_recipe(path, AnchorRecipe) for path in (RECIPES / "sketch-an-anchor").glob("*.toml")}
    assert {name: (r.config.anchors, r.anchoring.graph, r.anchoring.randomised) for name, r in found.items()} == {
        "baseline": ((), 4, True),
        "visual-anchors": (("visual",), 0, False),
        "both-anchors": (("word", "visual"), 0, False),
        "randomised": (("word", "visual"), 0, True),
        "graph": (("word", "visual"), 4, False),
        "whole": (("word", "visual"), 4, True),
        "paper": (("word", "visual"), 4, True),
    }
    paper = found["paper"]
    assert (paper.steps, paper.batch, paper.config.backbone) == (1500, 16, "vit_small_patch8_224")
    assert (paper.optimiser.warmup, paper.optimiser.rate, paper.optimiser.last_rate) == (150, 5e-6, 1e-6)


def test_recipes_of_clip_at_are_for_clip_or_for_a_small_vit() -> None:
    found = {path.stem: read_recipe(path, ClipAtRecipe) for path in (RECIPES / "clip-at").glob("*.toml")}
    assert {name: (recipe.backbone, recipe.level) for name, recipe in found.items()} == {
        "category": ("vit_tiny_patch16_224", "category"),
        "fine-grained": ("vit_tiny_patch16_224", "fine-grained"),
        "clip": ("clip", "category"),
        "clip-fine-grained": ("clip", "fine-grained"),
    }
    public = found["clip"]
    assert (public.optimiser.encoder_rate, public.optimiser.prompt_rate, public.batch) == (1e-6, 1e-4, 192)
    assert (public.losses.margin, public.network["prompts"]) == (0.2, 3)
    assert found["category"].pictures == found["fine-grained"].pictures


def test_the_rows_of_a_table_of_ablations_have_one_budget() -> None:
    budgets = {path.stem: read_recipe(path, ZseRecipe).pictures for path in (RECIPES / "ablations").glob("*.toml")}
    assert len(budgets) > 10
    assert max(budgets.values()) < 1.01 * min(budgets.values())


def test_a_recipe_may_be_another_one_with_changes(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(
        'preset = "zse-ti16"\nseed = 3\n[network]\ndropout = 0.0\n[[phases]]\nimage_size = 64\nsteps = 5\n'
        "[quadruplets]\nsamples = 4\n"
    )
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "row.toml").write_text(
        'base = "../base.toml"\nseed = 4\n[network]\ntokenizer = "plain"\n[quadruplets]\nrelation = 0.0\n'
    )
    base, row = (read_recipe(tmp_path / name, ZseRecipe) for name in ("base.toml", "rows/row.toml"))
    changed = {"dropout": 0.0, "tokenizer": "plain"}
    assert base.quadruplets is not None
    fewer = dataclasses.replace(base.quadruplets, relation=0.0)
    assert row == dataclasses.replace(base, seed=4, network=changed, quadruplets=fewer)
    assert (base.pictures, base.methods, row.methods) == (80, ("rn", "ret"), ("ret",))


def test_a_recipe_may_change_one_of_the_program(tmp_path: Path) -> None:
    (tmp_path / "slow.toml").write_text('base = "own"\n[optimiser]\nencoder_rate = 1e-6\n')
    (tmp_path / "slower.toml").write_text('base = "slow.toml"\nsplit = ["train"]\n')
    own = read_recipe(Path("own"), ZseRecipe)
    slow = dataclasses.replace(own.optimiser, encoder_rate=1e-6)
    expected = dataclasses.replace(own, split=("train",), optimiser=slow)
    assert read_recipe(tmp_path / "slower.toml", ZseRecipe) == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("preset = ", "not a usable training recipe"),
        ('preset = "zse-ti16"', "phases: Field required"),
        ('preset = "zse-ti16"\nphases = []', "phases: Tuple should have at least 1 item"),
        ('method = "magic"', "there is no method 'magic'"),
        ('split = ["unseen"]\n' + ZSE, "only together with"),
        (ZSE + "[network]\ncolour = 1", "unknown field"),
        (ZSE + "[network]\nmean = [0.0, 0.0, 0.0]", r"[network] may not set mean"),
        ("speed = 9\n" + ZSE, "not a usable training recipe: speed"),
        (ZSE + "[quadruplets]\nrelation = 0.0\ntriplet = 0.0\n", "all losses are switched off"),
        (ZSE.replace("zse-ti16", "vgg"), "there is no preset"),
        ('base = "nobody"', "there is no recipe nobody"),
        ('base = "nobody.toml"', "No such file"),
        ('base = "recipe.toml"', "it is its own base"),
        ('base = "own"\n[batch]\nclasses = "many"', "batch.classes: Input should be a valid integer"),
        ('base = "own"\n[batch]\nclasses = 0', "batch.classes: Input should be greater than or equal to 1"),
        ('base = "own"\nevaluate_every = 0', "evaluate_every: Input should be greater than or equal to 1"),
        ('base = "own"\n[[phases]]\nimage_size = 100\nsteps = 2', "image_size 100 is not a multiple of patch_size 16"),
        ('base = "own"\n# \udce9', "not a usable training recipe: 'utf-8' codec"),
        ("speed = 9\n" + ANCHORS, "not a usable training recipe"),
        (ANCHORS.replace("batch = 3", "batch = 1"), "batch: Input should be greater than or equal to 2"),
        (ANCHORS.replace("vit_tiny_patch16_224", "resnet50"), "resnet50"),
        (ANCHORS.replace("vit_tiny_patch16_224", "hf-hub:some/where"), "timm has no architecture 'hf-hub:some/where'"),
        (ANCHORS.replace("units = 40", 'units = 40\nanchors = ["visual", "word"]'), "in this order"),
        (ANCHORS.replace("units = 40", "colour = 1"), "unknown field"),
        (ANCHORS + "[network.sizes]\ncolour = 1\n", "[network.sizes] cannot be used"),
        (ANCHORS.replace("steps", 'split = ["unseen"]\nsteps'), "only together with"),
        (ANCHORS.replace("steps", "temperature = 0.0\nsteps"), "temperature: Input should be greater than 0"),
        (CLIP_AT + 'level = "pixels"\n', "not a usable training recipe: level"),
        (CLIP_AT + "[losses]\ntemperature = 0.0\n", "losses.temperature: Input should be greater than 0"),
        (CLIP_AT + "[losses]\ntriplet = 0.0\nclasses = 0.0\n", "all losses are switched off"),
        (CLIP_AT + 'level = "fine-grained"\naugment = true\n', "cannot augment"),
        (CLIP_AT.replace("batch = 4", 'batch = 5\nlevel = "fine-grained"'), "with 2 pairs or more of each"),
        (CLIP_AT + "[network]\nshared_norms = true\n", "[network] may not set shared_norms"),
    ],
    ids=lambda value: value[-40:] if isinstance(value, str) else "",
)
def test_a_mistake_in_a_recipe_is_named(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelError) as refused:
        read_recipe(path, Recipe)
    assert sentence in str(refused.value)


def test_a_recipe_of_another_method_is_refused_with_one_that_fits() -> None:
    with pytest.raises(ModelError, match=r"default.* is no recipe of CLIP-AT; one is clip-at/category"):
        read_recipe(Path("default"), ClipAtRecipe)


def test_a_recipe_at_a_budget_differs_in_length_size_and_rates_alone(tmp_path: Path) -> None:
    (tmp_path / "first.toml").write_text(
        'preset = "zse-ti16"\n[[phases]]\nimage_size = 224\nsteps = 9\n[quadruplets]\nsamples = 1\n'
    )
    (tmp_path / "small.toml").write_text(at_budget(tmp_path / "first.toml", Budget(22, 96), 0.3).text)
    first, small = (read_recipe(tmp_path / f"{name}.toml", ZseRecipe) for name in ("first", "small"))
    assert (small.steps, small.pictures, small.phases) == (5, 20, (Phase(96, 5),))
    assert (small.save_every, small.evaluate_every, small.evaluate_share, small.optimiser.warmup) == (1, 1, 4, 1)
    assert (small.optimiser.encoder_rate, small.optimiser.head_rate) == (3e-5, 1.5e-4)
    changed = ("phases", "optimiser", "save_every", "evaluate_every", "evaluate_share")
    same = {field.name for field in dataclasses.fields(first)} - set(changed)
    assert all(getattr(first, name) == getattr(small, name) for name in same)


@pytest.mark.parametrize("name", ["category", "fine-grained", "clip"])
def test_a_recipe_at_a_budget_keeps_the_ratio_of_its_rates(name: str, tmp_path: Path) -> None:
    own = read_recipe(Path("clip-at") / name, ClipAtRecipe)
    budgeted = at_budget(Path("clip-at") / name, Budget(15_000, 128), 3.0)
    (tmp_path / "recipe.toml").write_text(budgeted.text)
    recipe = read_recipe(tmp_path / "recipe.toml", ClipAtRecipe)
    assert recipe.pictures == budgeted.pictures <= 15_000
    assert recipe.network["image_size"] == 128
    for rate in recipe.rates:
        assert getattr(recipe.optimiser, rate) == pytest.approx(3 * getattr(own.optimiser, rate))
    assert budgeted.rate == recipe.optimiser.encoder_rate
    assert recipe.losses == own.losses
