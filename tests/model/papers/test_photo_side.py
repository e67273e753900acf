from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from model.checkpoint import load_zse_network
from model.commands import main
from model.datasets.corpus import DATA_VARIABLE
from model.engine import TWO_SIDED, Calibration, TwoSidedConfig, from_json
from model.errors import ModelError
from model.images import open_image
from model.matcher import load
from model.network import Network, PretrainedVit, TwoSidedEncoder, VitLayout, main_layout
from model.papers import photo_side
from model.papers.photo_side import fields_of, layout_of, read_vit, vit_tensors
from tests.archives import pack
from tests.indexer.clip_models import READING, saved_clip
from tests.learning import write_class_folders
from tests.pictures import SHAPES, encoded, photo

PLAIN = VitLayout(32, 192, 2, 3, 384)
CLIP = dataclasses.replace(PLAIN, norm_eps=1e-5, clip=True, quick_gelu=True)
DEFAULT = VitLayout(14, 384, 12, 6, 1536)


def random_weights(layout: VitLayout) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    state = layout.build(224).state_dict()
    return {name: value + 0.05 * torch.randn_like(value) for name, value in state.items()}


def config_on(layout: VitLayout, *, second: bool = False) -> TwoSidedConfig:
    """The configuration of a network on a ViT."""
    base = TWO_SIDED
    vit = PretrainedVit(layout, 224, {}, base.mean, base.std)
    return from_json(TwoSidedConfig, json.dumps({**dataclasses.asdict(base), **fields_of(vit, "ours", second)}), "it")


def test_the_default_network_is_one_on_its_own_vit() -> None:
    assert config_on(DEFAULT, second=True) == TWO_SIDED


def test_sketches_have_fewer_patches_and_both_sides_keep_as_many_tokens() -> None:
    config = config_on(VitLayout(16, 768, 12, 12, 3072))
    assert (config.grid, config.sketch_grid, config.second_width) == (14, 10, 0)
    assert (config.token_count("photo"), config.token_count("sketch")) == (17, 17)


@pytest.mark.parametrize("layout", [PLAIN, CLIP], ids=["timm's", "CLIP's"])
def test_tokens_are_those_of_the_vit(layout: VitLayout) -> None:
    weights = random_weights(layout)
    config = config_on(layout)
    network = Network(config, Calibration())
    assert isinstance(network.encoder, TwoSidedEncoder)
    side = network.encoder.photo_side
    side.load_state_dict(vit_tensors(weights, main_layout(config), config.image_size), strict=False)
    vit = layout.build(224).eval()
    vit.load_state_dict(weights)
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        ours, _ = side.vit(images, side.tuning)
        assert torch.allclose(ours, vit.forward_features(images), atol=1e-4)
        assert side.second(images).shape == (2, 0)


def test_a_vit_is_named_by_timm_by_open_clip_or_by_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    state = timm.create_model("vit_tiny_patch16_224").state_dict()
    monkeypatch.setattr(photo_side, "read_backbone", {name: state}.__getitem__)
    vit = read_vit(f"timm:{name}")
    assert vit.layout == VitLayout(16, 192, 12, 3, 768) == layout_of(vit.weights)
    assert vit.mean == vit.std == (0.5, 0.5, 0.5), "as its weights were trained"
    monkeypatch.undo()
    folder = saved_clip(tmp_path / "clip", READING)
    assert read_vit(f"clip:{folder}").layout.clip
    save_file(random_weights(PLAIN), tmp_path / "vit.safetensors")
    assert read_vit(str(tmp_path / "vit.safetensors")).layout == PLAIN


@pytest.mark.parametrize("source", ["timm:resnet18", "timm:vit_small_patch14_reg4_dinov2", "clip:nothing/here"])
def test_what_is_no_plain_vit_is_refused(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo_side, "read_backbone", lambda _: {})
    with pytest.raises(ModelError):
        read_vit(source)


def test_a_network_is_trained_on_the_photo_side_of_another_vit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    pictures = {f"first/photo/{name}/{n}.png": encoded(photo(name, 32, n)) for name in SHAPES[:2] for n in range(100)}
    pack(tmp_path / "data" / "first.tar.gz", pictures)
    (tmp_path / "data" / "split.json").write_text(json.dumps({"train": SHAPES[:2]}))
    shown = encoded(photo("star", 32, 1))
    pack(tmp_path / "data" / "more" / "imagenet1k.tar.gz", {"imagenet1k/photo/574_golf_ball/1.png": shown})
    save_file(random_weights(PLAIN), tmp_path / "vit.safetensors")
    assert main(["photo-side", "vit.safetensors", "photo-side.safetensors"]) == 0
    write_class_folders(tmp_path / "mine", seeds=range(3), shapes=SHAPES[:5])
    (tmp_path / "my.toml").write_text(
        'base = "two-sided/choose"\nbf16 = false\nsteps = 2\nclasses = 4\nevaluate_share = 1\nchoose_share = 1\n'
    )
    command = ["train", "my.toml", "--data", "mine", "--backbone", "photo-side.safetensors"]
    assert main([*command, "--out", "mine.safetensors"]) == 0
    config = load_zse_network(tmp_path / "mine.safetensors").config
    assert isinstance(config, TwoSidedConfig)
    assert (config.depth, config.patch_size, config.second_width) == (2, 32, 0)
    matcher = load(tmp_path / "mine.safetensors", dtype="float32")
    drawn, photographed = (open_image(tmp_path / "mine" / half / SHAPES[0] / "000.png") for half in ("sketch", "photo"))
    sketch = matcher.encode(matcher.prepare(drawn, "sketch")[None], "sketch")
    picture = matcher.encode(matcher.prepare(photographed, "photo")[None], "photo")
    assert matcher.scores(sketch, picture, "rn").shape == (1, 1)
