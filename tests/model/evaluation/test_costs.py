"""Tests that the costs of networks are counted and measured, for recipes and for checkpoints."""

import json
from pathlib import Path

import pytest

from sketch_search.model.commands import main
from tests.networks import tiny_checkpoint, tiny_network


def test_costs_are_those_of_the_recipe_or_the_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "tiny.safetensors")
    small = tmp_path / "small.toml"
    small.write_text('base = "zse/tiny"\n[network]\nimage_size = 64\n')
    anchors = tmp_path / "anchors.toml"
    sizes = "[network.sizes]\nembed_dim = 32\ndepth = 4\nnum_heads = 2\n"
    anchors.write_text(f'base = "sketch-an-anchor/baseline"\n[network]\nimage_size = 64\n{sizes}')
    assert main(["costs", str(checkpoint), str(small), str(anchors), "--json"]) == 0
    tiny, recipe, one_vector = json.loads(capsys.readouterr().out).values()
    assert tiny["M parameters"] == pytest.approx(sum(p.numel() for p in tiny_network().parameters()) / 1e6)
    assert recipe["M parameters"] > tiny["M parameters"]
    for found in (tiny, recipe, one_vector):
        # A step forth and back computes three products for each one of a step forth.
        assert 2 < found["G to learn from a photo"] / found["G a photo"] < 3.1
        assert found["ms a photo"] > 0
    assert min(tiny["ms a pair"], recipe["ms a pair"]) > 0
    assert one_vector["ms a pair"] == one_vector["M a pair"] == 0
    selected = ["--set", "network.keep_sketch=0.5", "--set", "network.keep_photo=0.5"]
    assert main(["costs", str(small), *selected, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[str(small)]["M a pair"] < 0.5 * recipe["M a pair"]
    assert main(["costs", "clip-at/category"]) == 2
    assert "depends on its backbone; name a checkpoint" in capsys.readouterr().err
    assert main(["costs", str(checkpoint)]) == 0
    assert "| network | M parameters |" in capsys.readouterr().out
