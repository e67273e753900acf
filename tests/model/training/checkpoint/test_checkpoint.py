import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sketch_search import model
from sketch_search.model.engine import TWO_SIDED, Calibration, TwoSidedConfig, ZseConfig, preset, read_metadata
from sketch_search.model.errors import ModelError, UserError
from sketch_search.model.training.checkpoint import save_checkpoint
from sketch_search.model.training.commands import main
from sketch_search.model.training.network.zse import from_backbone, read_backbone
from tests.learning import small_backbone
from tests.networks import TINY, TINY_CALIBRATION, tiny_checkpoint, tiny_config, tiny_network


@pytest.mark.parametrize(
    ("record", "changes", "sentence"),
    [
        (TINY, {"image_size": 70}, "not a multiple of patch_size"),
        (TINY, {"heads": 3}, "not a multiple of heads"),
        (TINY, {"keep_photo": 0.0}, "keep rates"),
        (TINY, {"select_after": (9,)}, "beyond depth"),
        (TINY, {"image_size": 48, "relation": "kernel-mlp"}, "even patch grid"),
        (TINY, {"released_value_from_query": True, "keep_photo": 0.5}, "equal numbers"),
        (TINY, {"select_after": (1,) * 3}, "must ascend"),
        (TINY, {"words": (("dog",),) * 20_001}, "at most 20,000 words, not 20,001"),
        (TINY, {"words": ((),)}, "1 to 16 names, not 0"),
        (TINY, {"words": (("dog",) * 17,)}, "1 to 16 names, not 17"),
        (TINY, {"words": (("",),)}, "must have letters"),
        (TINY, {"words": (("d" * 101,),)}, "at most 100 characters"),
        (TINY, {"words": (("dog", "d\x1bg"),)}, "control characters"),
        (TINY, {"words": (("dog",), ("Dog",))}, "a unique name"),
        (TINY, {"words": (("dog",),), "placed": 1}, "placed must be fewer than words"),
        (TWO_SIDED, {"sketch_size": 238}, "larger than image_size"),
        (TWO_SIDED, {"second_heads": 7}, "not a multiple of its heads"),
        (TINY_CALIBRATION, {"best_method": "fused"}, "best_method"),
        (TINY_CALIBRATION, {"methods": ("fused",), "best_method": "fused"}, "fusion weight"),
        *((TINY_CALIBRATION, {"fusion": fusion}, "fusion must lie in") for fusion in (math.inf, math.nan, 1e308)),
        (TINY_CALIBRATION, {"diffusion": 1.0}, "diffusion must lie in"),
        (TINY_CALIBRATION, {"diffusion": -1.5}, "diffusion must lie in"),
        (TINY_CALIBRATION, {"variants": 0}, "variants must be 1 to 3"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_impossible_configuration_or_calibration_is_refused_with_a_sentence(
    record: ZseConfig | TwoSidedConfig | Calibration, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ModelError, match=sentence):
        dataclasses.replace(record, **changes)


def test_files_that_are_no_checkpoints_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sketch_search.model.engine.files.PACKAGED", tmp_path)
    with pytest.raises(
        ModelError, match="this installation has no checkpoint 'default'; name a file with --weights FILE"
    ):
        model.load()
    path = tmp_path / "net.safetensors"
    with pytest.raises(ModelError, match="there is no checkpoint at"):
        model.load(path)
    torch.save({"model": {}}, path)
    with pytest.raises(ModelError, match="sketch-search model convert"):
        model.load(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match="without this project's configuration"):
        model.load(path)
    path.unlink()
    tiny_checkpoint(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="not a safetensors file"):
        model.load(path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"metadata": {"version": "1"}}, "has checkpoint version 1; this program reads 2: make or download it again"),
        ({"metadata": {"version": "3"}}, "install a newer sketch-search"),
        ({"drop": ["relation.bias"]}, "does not hold the tensors"),
        ({"spoil": ["encoder.norm.weight"]}, "not finite"),
        ({"config": {"novel": 1}}, "has unknown fields"),
        ({"config": {"depth": "12"}}, "depth: Input should be a valid integer"),
        ({"config": {"tokenizer_widths": [1, 2]}}, "tokenizer_widths"),
        ({"config": {"name": None}}, "name: Input should be a valid string"),
        ({"metadata": {"config": "[" * 100_000}}, "configuration cannot be read"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_damaged_and_foreign_checkpoints_are_refused(changes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path / "net.safetensors")
    tensors, metadata = load_file(path), read_metadata(path) | changes.get("metadata", {})
    if "config" in changes:
        metadata["config"] = json.dumps({**dataclasses.asdict(TINY), **changes["config"]})
    tensors |= {name: torch.full_like(tensors[name], math.nan) for name in changes.get("spoil", ())}
    kept = {name: tensor for name, tensor in tensors.items() if name not in changes.get("drop", ())}
    save_file(kept, path, metadata=metadata)
    with pytest.raises(ModelError, match=sentence):
        model.load(path)


def test_equal_weights_give_equal_files(tmp_path: Path) -> None:
    names = ["umlaut-\u00fc", "newline-\n", 'quote-"', "backslash-\\", *"abcde"]
    notes = {name: name.title() for name in names}
    files = []
    for number in range(4):
        save_checkpoint(tiny_network(), tmp_path / f"{number}.safetensors", notes)
        files.append((tmp_path / f"{number}.safetensors").read_bytes())
    assert len(set(files)) == 1
    assert notes.items() <= read_metadata(tmp_path / "0.safetensors").items()


def test_a_checkpoint_replaces_checkpoints_alone(tmp_path: Path) -> None:
    network, target = from_backbone(tiny_config(), small_backbone()), tmp_path / "network.safetensors"
    for _ in range(2):
        save_checkpoint(network, target)
    target.write_text("no checkpoint")
    with pytest.raises(UserError, match="is not overwritten"):
        save_checkpoint(network, target)
    assert target.read_text() == "no checkpoint"


def test_an_untrained_relation_network_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "new.safetensors"
    save_checkpoint(from_backbone(tiny_config(), small_backbone()), target)
    assert main(["info", str(target)]) == 0
    out = capsys.readouterr().out
    assert "ret (best: ret)" in out
    assert "relation network" in out
    assert "untrained" in out
    assert model.load(target, dtype="float32").methods == ("ret",)


def test_a_backbone_of_another_size_or_kind_is_refused() -> None:
    with pytest.raises(ModelError, match=r"Missing key.*use the preset or recipe of its size"):
        from_backbone(preset("zse-b16"), small_backbone())
    with pytest.raises(ModelError, match=r"Missing key.*cls_token"):
        from_backbone(tiny_config(), {k: v for k, v in small_backbone().items() if k != "cls_token"})
    with pytest.raises(ModelError, match="neither a safetensors file nor a timm model tag"):
        read_backbone("no_such_model")
