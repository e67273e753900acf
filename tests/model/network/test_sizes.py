"""The larger presets, from a pretrained ViT's file to a trained checkpoint, on random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

import model
from model.commands import main
from model.papers.recipe import RECIPES
from tests.learning import write_class_folders
from tests.pictures import drawing, photo


def write_backbone(tag: str, path: Path) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state: dict[str, torch.Tensor] = timm.create_model(tag, pretrained=False).state_dict()
    save_file({name: tensor.half() for name, tensor in state.items()}, path)
    return path


@pytest.mark.parametrize(
    ("preset", "tag", "width"),
    [
        ("zse-s16", "vit_small_patch16_224", 384),
        pytest.param("zse-b16", "vit_base_patch16_224", 768, marks=pytest.mark.soak),
    ],
)
def test_a_larger_preset_starts_from_its_vit_and_trains_by_the_papers_recipe(
    preset: str, tag: str, width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    backbone = write_backbone(tag, tmp_path / "vit.safetensors")
    assert main(["init", preset, "--backbone", str(backbone), str(tmp_path / "new.safetensors")]) == 0
    matcher = model.load(tmp_path / "new.safetensors", dtype=torch.float32)
    sketch = matcher.encode(matcher.prepare(drawing("star", 96, 0), "sketch")[None], "sketch")
    gallery = matcher.encode(matcher.prepare(photo("star", 96, 0), "photo")[None], "photo")
    assert sketch.features.shape == (1, matcher.token_count("sketch"), width)
    assert -2 <= float(matcher.scores(sketch, gallery, "ret")) <= 0
    del matcher

    recipe = tmp_path / "one-step.toml"
    recipe.write_text(
        f'base = "{RECIPES / "paper.toml"}"\npreset = "{preset}"\nsteps = 1\n'
        "[network]\nimage_size = 64\n[quadruplets]\nsamples = 1\n"
    )
    write_class_folders(tmp_path / "data", seeds=range(1))
    command = ["train", str(recipe), "--backbone", str(backbone), "--data", str(tmp_path / "data")]
    assert main([*command, "--run", str(tmp_path / "run"), "--out", str(tmp_path / "out.safetensors")]) == 0
    assert model.load(tmp_path / "out.safetensors", dtype=torch.float32).config.width == width
