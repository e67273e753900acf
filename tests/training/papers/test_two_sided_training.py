import dataclasses
import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.layers.layer_scale import LayerScale

from sketch_search.indexer import open_index
from sketch_search.indexer.commands import main as indexer
from sketch_search.model import load
from sketch_search.model.engine import TWO_SIDED, Calibration, Projection, TwoSidedConfig, from_json
from sketch_search.model.errors import ModelError
from sketch_search.model.torch import (
    Network,
    PretrainedVit,
    TwoSidedEncoder,
    VitLayout,
    layout_of,
    main_layout,
    second_layout,
)
from sketch_search.model.torch.checkpoint import load_network, load_zse_network
from sketch_search.training.commands import main
from sketch_search.training.corpus import DATA_VARIABLE
from sketch_search.training.evaluation.scoring import encode_pictures, ret_matcher
from sketch_search.training.papers.photo_side import fields_of, read_vit, renormalise, vit_tensors
from sketch_search.training.papers.pictures import training_corpora, training_set
from sketch_search.training.papers.tables import read_recipe
from sketch_search.training.papers.two_sided import SKETCHES_PER_CLASS, TwoSidedRecipe, TwoSidedTrainer
from sketch_search.training.tasks import some_of_each
from tests.model.torch.test_network import NARROW, SECOND, two_sided, written
from tests.networks import READING, saved_clip, toml, write_class_folders
from tests.pictures import SHAPES, encoded, photo
from tests.shared_data import pack

NETWORK = {**NARROW, **SECOND, "keep_sketch": 0.05, "keep_photo": 0.05}
SMALL = from_json(TwoSidedConfig, json.dumps({**dataclasses.asdict(TWO_SIDED), **NETWORK}), "SMALL")


COMMAND = ["train", "my.toml", "--data", "mine", "--backbone", "photo-side.safetensors", "--start", "start.safetensors"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with pictures of four classes, a recipe, a photo side, a network to start from, and a whole training."""
    folder = tmp_path_factory.mktemp("work")
    write_class_folders(folder / "mine", seeds=range(3), shapes=SHAPES[:4])
    (folder / "my.toml").write_text(
        'base = "two-sided/own"\nbf16 = false\nsteps = 4\nclasses = 3\n'
        # Rates that are seen in half precision after two steps.
        "save_every = 1\n[optimiser]\nwarmup = 1\ntuning_rate = 0.05\npair_rate = 0.05\n"
        f"[network]\n{toml(NETWORK)}\n"
    )
    regions = Projection(np.eye(8, SMALL.width, dtype=np.float32))
    written(folder, two_sided(SMALL).projection_replaced(regions), "start.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SKETCH_SEARCH_DATA", raising=False)
        patch.chdir(folder)
        assert main([*COMMAND, "--run", "whole"]) == 0
        yield folder


def trained(work: Path, run: str) -> Network:
    network = load_network(work / run / "final.safetensors")
    assert isinstance(network, Network)
    return network


def by_another_recipe(work: Path, name: str, setting: str) -> list[str]:
    (work / name).write_text((work / "my.toml").read_text().replace("steps = 4", f"steps = 4\n{setting}"))
    return ["train", name, *COMMAND[2:]]


def test_a_training_changes_the_sketch_side_and_one_index_serves_what_it_began_with_and_its_result(work: Path) -> None:
    before, after = load_network(work / "start.safetensors"), trained(work, "whole")
    # Checkpoints are kept in half precision.
    moved = {
        name
        for name, value in before.state_dict().items()
        if not torch.allclose(value, after.state_dict()[name], atol=2e-3)
    }
    assert any(name.startswith("encoder.tuning") for name in moved)
    assert any(name.startswith("cross.") for name in moved)
    assert not any("photo_side" in name for name in moved)
    assert after.calibration == before.calibration
    assert indexer(["build", "mine/photo", "--weights", "start.safetensors", "--index", "index", "--quiet"]) == 0
    open_index(work / "index", load(work / "whole" / "final.safetensors")).close()


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
def test_a_step_computes_on_the_device_that_the_training_is_told(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main([*COMMAND, "--run", "moved", "--until", "1"]) == 0
    recipe = read_recipe(work / "my.toml")
    assert isinstance(recipe, TwoSidedRecipe)
    pictures = training_corpora(work / "mine", recipe)
    data = training_set(pictures.training, pictures.further)
    network = load_zse_network(work / "start.safetensors").prior_replaced(None).vocabulary_replaced(None)
    # A device without numbers and without autocast: whatever is left on the CPU cannot be computed with what is there.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    trainer = TwoSidedTrainer(recipe, data, network, work / "moved", device=torch.device("meta"))
    losses = trainer.losses()
    assert losses.keys() == {"classes", "contrast", "pairs"}
    assert {loss.device.type for loss in losses.values()} == {"meta"}


def test_photos_of_one_class_are_told_apart_by_the_sketches_that_were_drawn_from_them(work: Path) -> None:
    write_class_folders(work / "pairs", seeds=range(8), shapes=SHAPES[:3], drawn=2)
    write_class_folders(work / "pairs", seeds=range(7), shapes=SHAPES[3:4], drawn=2)
    network = load_zse_network(work / "start.safetensors").prior_replaced(None).vocabulary_replaced(None)
    losses = {}
    for weight in (1.0, 3.0):
        changes = {"instance_classes": 9, "instances": 4, "instance_weight": weight}
        recipe = read_recipe(work / "my.toml", changes)
        assert isinstance(recipe, TwoSidedRecipe)
        pictures = training_corpora(work / "pairs", recipe)
        trainer = TwoSidedTrainer(recipe, training_set(pictures.training, pictures.further), network, work / "pairs")
        assert [[len(sketches) for _, sketches in pairs] for pairs in trainer.drawn] == [[2] * 8] * 3
        losses[weight] = trainer.losses()
    assert losses[1].keys() == {"classes", "contrast", "pairs", "instances", "instances_ret"}
    for name in ("instances", "instances_ret"):
        assert losses[3][name].item() == pytest.approx(3 * losses[1][name].item())
    torch.autograd.backward(losses[1]["instances"])
    assert trainer.network.tuning.fc1_bias.grad is not None, "the gradient reaches the sketch tower"


def test_a_start_on_another_photo_side_or_device_is_refused(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "other").mkdir()
    other = written(work / "other", two_sided(SMALL, seed=7))
    assert main([*COMMAND[:5], "other/photo-side.safetensors", *COMMAND[6:], "--run", "nowhere"]) == 2
    assert "was trained against another photo side" in capsys.readouterr().err
    # The photo side beside a start need not be named.
    assert main([*COMMAND[:4], *COMMAND[6:], "--run", "whole"]) == 0
    assert load(other).photo_sha256 != load(work / "start.safetensors").photo_sha256, "so has an index of its own"
    assert main([*COMMAND, "--run", "nowhere", "--device", "abacus"]) == 2
    assert "device 'abacus' cannot be used here" in capsys.readouterr().err
    assert not (work / "nowhere").exists(), "no picture was read"


PLAIN = VitLayout(32, 192, 2, 3, 384)
CLIP = dataclasses.replace(PLAIN, norm_eps=1e-5, clip=True, quick_gelu=True)


def random_vit(layout: VitLayout, *, scaled: bool = False) -> Any:
    """A ViT of timm for pictures of 224 pixels. scaled: with LayerScale."""
    torch.manual_seed(0)
    vit: Any = layout.build(224)
    for block in vit.blocks if scaled else ():
        block.ls1, block.ls2 = LayerScale(layout.width), LayerScale(layout.width)
    vit.load_state_dict({name: value + 0.05 * torch.randn_like(value) for name, value in vit.state_dict().items()})
    return vit.eval()


def config_on(layout: VitLayout, *, second: bool = False) -> TwoSidedConfig:
    base = TWO_SIDED
    vit = PretrainedVit(layout, 224, {}, base.mean, base.std)
    return from_json(TwoSidedConfig, json.dumps({**dataclasses.asdict(base), **fields_of(vit, "ours", second)}), "it")


@pytest.mark.parametrize(
    ("layout", "scaled"), [(PLAIN, False), (PLAIN, True), (CLIP, False)], ids=["timm's", "with LayerScale", "CLIP's"]
)
def test_a_photo_side_gives_the_tokens_of_its_vit(layout: VitLayout, scaled: bool) -> None:
    config, vit = config_on(layout), random_vit(layout, scaled=scaled)
    encoder = Network(config, Calibration()).encoder
    assert isinstance(encoder, TwoSidedEncoder)
    side = encoder.photo_side
    side.load_state_dict(vit_tensors(vit.state_dict(), main_layout(config), config.image_size), strict=False)
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        ours, _ = side.vit(images, side.tuning)
        torch.testing.assert_close(ours, vit.forward_features(images), atol=1e-4, rtol=1e-4)
        assert side.second(images).shape == (2, 0)


def test_the_second_vit_has_its_shape_and_sees_the_pixels_that_it_was_trained_with() -> None:
    layout = second_layout(SMALL)
    weights = random_vit(layout).state_dict()
    tensors = vit_tensors(weights, layout, SMALL.image_size, "second_")
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (SMALL.mean, SMALL.std))
    pixels = torch.rand(1, 3, 224, 224)
    changed = renormalise(tensors, "second_", SMALL.mean, SMALL.std)
    kernel, bias = "second_vit.patch_kernel", "second_tuning.patch_bias"
    own = F.conv2d((pixels - 0.5) / 0.5, tensors[kernel], tensors[bias], stride=16)
    other = F.conv2d((pixels - mean) / std, changed[kernel], changed[bias], stride=16)
    assert torch.allclose(own, other, atol=1e-4)
    with pytest.raises(ModelError, match="not the weights of a ViT with 3 blocks"):
        vit_tensors(weights, dataclasses.replace(layout, depth=3), SMALL.image_size)


def test_a_recipe_may_keep_a_part_of_what_was_learned_and_tokens_are_centred_again(work: Path) -> None:
    assert main(by_another_recipe(work, "half.toml", "kept = 0.5\nkept_tokens = 0.5")) == 0
    half = trained(work, "runs/half")
    whole, parts = trained(work, "whole").state_dict(), half.state_dict()
    for name in ("tuning.qkv_bias", "head.tokens.weight"):
        photos = whole[f"encoder.photo_side.{name}"]
        expected = photos + 0.5 * (whole[f"encoder.{name}"] - photos)
        torch.testing.assert_close(parts[f"encoder.{name}"], expected, atol=1e-2, rtol=0)
        assert not torch.allclose(whole[f"encoder.{name}"], expected, atol=1e-2)
    pictures = training_corpora(work / "mine", read_recipe(work / "half.toml"))
    some = some_of_each(pictures.training.sketches + pictures.further.sketches, SKETCHES_PER_CLASS)
    tokens = encode_pictures(ret_matcher(half), some, "sketch").patches
    assert np.linalg.norm(tokens.mean(axis=(0, 1))) < 0.05 * np.linalg.norm(tokens, axis=-1).mean()


def test_a_vit_is_named_by_timm_by_open_clip_or_by_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    state = timm.create_model("vit_tiny_patch16_224").state_dict()
    monkeypatch.setattr("sketch_search.model.torch.read_backbone", {name: state}.__getitem__)
    vit = read_vit(f"timm:{name}")
    assert vit.layout == VitLayout(16, 192, 12, 3, 768) == layout_of(vit.weights)
    assert vit.mean == vit.std == (0.5, 0.5, 0.5), "as its weights were trained"
    monkeypatch.undo()
    folder = saved_clip(tmp_path / "clip", READING)
    assert read_vit(f"clip:{folder}").layout.clip
    save_file(random_vit(PLAIN).state_dict(), tmp_path / "vit.safetensors")
    assert read_vit(str(tmp_path / "vit.safetensors")).layout == PLAIN


@pytest.mark.parametrize("source", ["timm:resnet18", "timm:vit_small_patch14_reg4_dinov2", "clip:nothing/here"])
def test_a_backbone_that_is_no_plain_vit_is_refused(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sketch_search.model.torch.read_backbone", lambda _: {})
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
    save_file(random_vit(PLAIN).state_dict(), tmp_path / "vit.safetensors")
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
    assert main(["evaluate", "--weights", "mine.safetensors", "--data", "mine"]) == 0
