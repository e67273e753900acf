import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import model
from model.checkpoint.file import load_network, save_checkpoint
from model.commands import main
from model.engine import default_checkpoint, preset, read_metadata
from model.errors import ModelError
from model.network.encoder import Encoder
from model.network.zse import from_backbone, read_backbone
from tests.networks import TINY, TINY_CALIBRATION, tiny_calibration, tiny_checkpoint, tiny_config


def rewrite(
    path: Path, *, metadata: dict[str, str] | None = None, drop: str | None = None, spoil: str | None = None
) -> None:
    tensors, notes = load_file(path), read_metadata(path)
    if drop:
        del tensors[drop]
    if spoil:
        tensors[spoil] = torch.full_like(tensors[spoil], float("nan"))
    save_file(tensors, path, metadata=notes | (metadata or {}))


@pytest.mark.parametrize(
    ("make", "overrides", "sentence"),
    [
        (tiny_config, {"image_size": 70}, "not a multiple of patch_size"),
        (tiny_config, {"heads": 3}, "not a multiple of heads"),
        (tiny_config, {"keep_photo": 0.0}, "keep rates"),
        (tiny_config, {"select_after": (9,)}, "beyond depth"),
        (tiny_config, {"image_size": 48, "relation": "kernel-mlp"}, "even patch grid"),
        (tiny_config, {"released_value_from_query": True, "keep_photo": 0.5}, "equal numbers"),
        (tiny_config, {"select_after": (1,) * 3}, "must ascend"),
        (tiny_calibration, {"best_method": "fused"}, "best_method"),
        (tiny_calibration, {"methods": ("fused",), "best_method": "fused"}, "fusion weight"),
        (tiny_calibration, {"fusion": math.inf}, "finite"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_an_impossible_configuration_or_calibration_is_refused_with_a_sentence(
    make: Callable[..., object], overrides: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ModelError, match=sentence):
        make(**overrides)


def test_a_checkpoint_gives_back_the_network_it_was_made_from(tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path / "tiny.safetensors", seed=4)
    network = load_network(path)
    assert (network.config, network.calibration) == (TINY, TINY_CALIBRATION)
    stored = load_file(path)
    assert all(torch.equal(tensor, stored[name]) for name, tensor in network.state_dict().items())
    assert not [*tmp_path.glob("*.partial")]


def test_files_that_are_no_checkpoints_are_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    with pytest.raises(ModelError, match="there is no checkpoint at"):
        model.load(path)
    torch.save({"model": {}}, path)
    with pytest.raises(ModelError, match="sketch-search model convert"):
        model.load(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match="without this project's configuration"):
        model.load(path)
    tiny_checkpoint(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="not a safetensors file"):
        model.load(path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"metadata": {"version": "1"}}, "has checkpoint version 1; this program reads 2: make or download it anew"),
        ({"metadata": {"version": "3"}}, "install a newer sketch-search"),
        ({"drop": "relation.bias"}, "does not hold the tensors"),
        ({"spoil": "encoder.norm.weight"}, "not finite"),
        ({"config": {"novel": 1}}, "fields that this version does not know"),
        ({"config": {"depth": "12"}}, "depth: Input should be a valid integer"),
        ({"config": {"tokenizer_widths": [1, 2]}}, "tokenizer_widths"),
        ({"config": {"name": None}}, "name: Input should be a valid string"),
        ({"metadata": {"config": "[" * 100_000}}, "configuration cannot be read"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_damaged_and_foreign_checkpoints_are_refused_with_a_sentence(
    changes: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    path = tiny_checkpoint(tmp_path / "net.safetensors")
    if "config" in changes:
        changes = {"metadata": {"config": json.dumps({**dataclasses.asdict(TINY), **changes["config"]})}}
    rewrite(path, **changes)
    with pytest.raises(ModelError, match=sentence):
        model.load(path)


def test_an_installation_without_a_checkpoint_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.engine.files.PACKAGED", tmp_path)
    with pytest.raises(ModelError, match="name one with --weights FILE or SBIR_WEIGHTS"):
        default_checkpoint()
    with pytest.raises(ModelError, match=r"name a \.safetensors file"):
        default_checkpoint(tmp_path / "none.safetensors")


@pytest.fixture(scope="module")
def backbone() -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        vit = timm.create_model("vit_tiny_patch16_224", pretrained=False)
        state: dict[str, torch.Tensor] = {k: v + 0.01 * torch.randn_like(v) for k, v in vit.state_dict().items()}
    return state


def test_a_new_network_encodes_exactly_as_the_vit_it_starts_from(backbone: dict[str, torch.Tensor]) -> None:
    vit = timm.create_model("vit_tiny_patch16_224", pretrained=False).eval()
    vit.load_state_dict(backbone)
    config = dataclasses.replace(preset("zse-ti16"), keep_sketch=1.0, keep_photo=1.0)
    network = from_backbone(config, backbone).eval()
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        expected = vit.forward_features(images)  # type: ignore[operator]
        torch.testing.assert_close(network.encode(images, "photo").features, expected)
    assert network.calibration.methods == ("ret",)
    assert isinstance(network.encoder, Encoder)
    assert not network.state_dict()["encoder.tokenizer.learnable.layers.6.weight"].any()


def test_an_untrained_relation_network_is_said_to_be_untrained(
    backbone: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "new.safetensors"
    save_checkpoint(from_backbone(preset("zse-ti16"), backbone), target)
    assert main(["info", str(target)]) == 0
    out = capsys.readouterr().out
    assert "ret (best: ret)" in out
    assert "relation network" in out
    assert "untrained" in out
    assert model.load(target, dtype="float32").methods == ("ret",)


def test_a_backbone_of_another_size_or_kind_is_refused(backbone: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ModelError, match="use the preset of its size"):
        from_backbone(preset("zse-b16"), backbone)
    with pytest.raises(ModelError, match="plain ViT with a class token"):
        from_backbone(preset("zse-ti16"), {k: v for k, v in backbone.items() if k != "cls_token"})
    with pytest.raises(ModelError, match="neither a safetensors file nor a timm model tag"):
        read_backbone("no_such_model")
