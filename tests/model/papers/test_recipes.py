from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from model.errors import ModelError
from model.papers.recipe import RECIPES, AnchorRecipe, ClipAtRecipe, TwoSidedRecipe, ZseRecipe, read_recipe

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
    assert Counter(map(type, recipes.values())) == {ZseRecipe: 4, TwoSidedRecipe: 4, AnchorRecipe: 7, ClipAtRecipe: 4}
    assert all(recipe.steps > 0 for recipe in recipes.values())
    assert read_recipe(Path("clip-at/category")) == recipes[Path("clip-at/category")]


def test_a_recipe_may_be_another_one_with_changes(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(
        'preset = "zse-ti16"\nseed = 3\nsteps = 5\n[network]\ndropout = 0.0\n[quadruplets]\nsamples = 4\n'
    )
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "row.toml").write_text(
        'base = "../base.toml"\nseed = 4\n[network]\ncross_ffn = 64\n[quadruplets]\nrelation = 0.0\n'
    )
    base, row = (read_recipe(tmp_path / name) for name in ("base.toml", "rows/row.toml"))
    changed = {"dropout": 0.0, "cross_ffn": 64}
    assert isinstance(base, ZseRecipe)
    fewer = dataclasses.replace(base.quadruplets, relation=0.0)
    assert row == dataclasses.replace(base, seed=4, network=changed, quadruplets=fewer)
    assert (base.methods, row.methods) == (("rn", "ret"), ("ret",))


def test_a_recipe_may_change_one_of_the_program(tmp_path: Path) -> None:
    (tmp_path / "slow.toml").write_text('base = "two-sided/own"\n[optimiser]\ntuning_rate = 1e-6\n')
    (tmp_path / "slower.toml").write_text('base = "slow.toml"\nsplit = ["train"]\n')
    own = read_recipe(Path("two-sided/own"))
    assert isinstance(own, TwoSidedRecipe)
    slow = dataclasses.replace(own.optimiser, tuning_rate=1e-6)
    assert read_recipe(tmp_path / "slower.toml") == dataclasses.replace(own, split=("train",), optimiser=slow)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("preset = ", "not a usable training recipe"),
        ("seed = 1", "preset: Field required"),
        ('method = "magic"', "there is no method 'magic'"),
        ('split = ["unseen"]\n' + ZSE, "only together with"),
        (ZSE + "[network]\ncolour = 1", "does not know (colour)"),
        (ZSE + "[network]\nmean = [0.0, 0.0, 0.0]", r"[network] may not set mean"),
        ("speed = 9\n" + ZSE, "not a usable training recipe: speed"),
        (ZSE + "[quadruplets]\nrelation = 0.0\ntriplet = 0.0\n", "all losses are switched off"),
        (ZSE.replace("zse-ti16", "vgg"), "there is no preset"),
        ('base = "nobody"', "there is no recipe nobody"),
        ('base = "nobody.toml"', "No such file"),
        ('base = "recipe.toml"', "it is its own base"),
        ('base = "two-sided/own"\nclasses = "many"', "classes: Input should be a valid integer"),
        ('base = "paper"\nevaluate_every = 0', "evaluate_every: Input should be greater than or equal to 1"),
        ('base = "paper"\n[network]\nimage_size = 100', "image_size 100 is not a multiple of patch_size 16"),
        ('base = "paper"\n# \udce9', "not a usable training recipe: 'utf-8' codec"),
        (ANCHORS.replace("vit_tiny_patch16_224", "resnet50"), "resnet50"),
        (ANCHORS.replace("vit_tiny_patch16_224", "hf-hub:some/where"), "timm has no architecture 'hf-hub:some/where'"),
        (ANCHORS.replace("units = 40", 'units = 40\nanchors = ["visual", "word"]'), "in this order"),
        (ANCHORS + "[network.sizes]\ncolour = 1\n", "cannot be built"),
        (CLIP_AT + 'level = "pixels"\n', "not a usable training recipe: level"),
        (CLIP_AT + "[losses]\ntemperature = 0.0\n", "losses.temperature: Input should be greater than 0"),
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
