from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import model
from model.commands import main
from model.datasets.corpus import Corpus
from model.errors import ModelError
from model.evaluation.categories import evaluate
from model.evaluation.keep_rates import KeepRates, at_rates, sweep
from model.network.config import Modality, ModelConfig, preset
from model.network.cost import costs, encoder_macs, pair_macs, projection_macs
from model.network.layers.cross import Side
from model.network.zse import Network
from tests.learning import write_class_folders
from tests.networks import tiny_checkpoint, tiny_config, tiny_network

Result = TypeVar("Result")
NETWORKS: dict[str, dict[str, Any]] = {
    "all tokens": {"keep_sketch": 1.0, "keep_photo": 1.0},
    "pruned": {},
    "pruned apart and across": {"keep_sketch": 0.5, "keep_photo": 0.9, "keep_cross": 0.6},
    "kernel-mlp": {"relation": "kernel-mlp", "relation_ret": False, "keep_cross": 0.5},
    "without cross-attention": {"cross_attention": False},
    "pair-mlp": {"relation": "pair-mlp", "relation_ret": False},
    "without self-attention": {"encoder": "resnet50", "keep_sketch": 1.0, "keep_photo": 1.0},
    "plain tokenizer, other sizes": {"tokenizer": "plain", "image_size": 96, "depth": 2, "select_after": (0,)},
}


def counted(compute: Callable[[], Result]) -> tuple[Result, int]:
    """What it gives, and the multiply-adds that PyTorch saw: half of the floating-point operations it counts."""
    # Written out, attention is made of the products that are counted.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        result = compute()
    return result, counter.get_total_flops() // 2


@pytest.mark.parametrize("name", NETWORKS)
def test_multiply_adds_are_those_that_pytorch_counts(name: str) -> None:
    network = tiny_network(**NETWORKS[name])
    config = network.config
    images = torch.rand(1, 3, config.image_size, config.image_size)

    def side(modality: Modality) -> Side:
        tokens, encoding = counted(lambda: network.encode(images, modality))
        assert encoding == encoder_macs(config, modality)
        projected, projecting = counted(lambda: network.project(tokens, modality))
        assert projecting == projection_macs(config, modality)
        return projected

    sketch, photo = side("sketch"), side("photo")
    assert counted(lambda: network.relate(sketch, photo))[1] == pair_macs(config)


def test_the_paper_s_network_costs_what_the_paper_says() -> None:
    whole = costs(preset("zse-b16"))
    assert whole.sketch_macs - projection_macs(preset("zse-b16"), "sketch") == pytest.approx(18.5e9, rel=0.01)
    pair = whole.pair_macs + 2 * projection_macs(preset("zse-b16"), "photo")
    assert pair == pytest.approx(1.83e9, rel=0.02)
    assert whole.photo_bytes == 197 * (768 + 4) + 196


def test_parameters_are_those_of_the_network() -> None:
    network = tiny_network()
    assert costs(network.config).parameters == sum(tensor.numel() for tensor in network.state_dict().values())


def test_fewer_tokens_cost_less_and_take_less_room() -> None:
    rates = [1.0, 0.9, 0.7, 0.5]
    found = [costs(dataclasses.replace(preset("zse-ti16"), keep_sketch=r, keep_photo=r)) for r in rates]
    for name in ("sketch_macs", "photo_macs", "pair_macs", "photo_bytes"):
        values = [getattr(c, name) for c in found]
        assert values == sorted(values, reverse=True)
        assert len(set(values)) == len(values)
    assert len({c.parameters for c in found}) == 1


def test_keep_rates_are_read_as_one_two_or_three_numbers() -> None:
    assert KeepRates.parse("0.7", 0.9) == KeepRates(0.7, 0.7, 0.9)
    assert KeepRates.parse("0.7/0.9", 1.0) == KeepRates(0.7, 0.9, 1.0)
    assert str(KeepRates.parse("0.7/0.9/0.5", 1.0)) == "0.7/0.9/0.5"
    for wrong in ("", "0", "1.2", "0.5/x", "0.5/0.5/0.5/0.5"):
        with pytest.raises(ModelError, match="numbers in"):
            KeepRates.parse(wrong, 1.0)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return write_class_folders(tmp_path / "data", seeds=range(2), shapes=("star", "house", "circle"))


def test_a_sweep_measures_the_same_weights_at_each_setting(tmp_path: Path, corpus: Corpus) -> None:
    matcher = model.load(tiny_checkpoint(tmp_path / "tiny.safetensors"))
    settings = [KeepRates(0.5, 0.9, 0.8), KeepRates(0.7, 0.7, 1.0)]
    apart, as_it_is = sweep(matcher, corpus, settings)
    whole = evaluate(matcher, corpus)
    assert as_it_is.methods == {method: part.overall for method, part in whole.methods.items()}
    other = model.load(tiny_checkpoint(tmp_path / "other.safetensors", keep_sketch=0.5, keep_photo=0.9, keep_cross=0.8))
    assert apart.methods == {method: part.overall for method, part in evaluate(other, corpus).methods.items()}
    assert apart.costs == costs(tiny_config(keep_sketch=0.5, keep_photo=0.9, keep_cross=0.8))
    assert apart.milliseconds > 0


def test_a_network_keeps_its_weights_and_precision_at_other_rates(tmp_path: Path) -> None:
    matcher = model.load(tiny_checkpoint(tmp_path / "tiny.safetensors"), dtype=torch.bfloat16)
    other = at_rates(matcher, KeepRates(0.5, 0.5, 1.0))
    assert other.dtype == torch.bfloat16
    assert isinstance(other.network, Network)
    assert isinstance(other.config, ModelConfig)
    for name, tensor in matcher.network.state_dict().items():
        assert torch.equal(tensor, other.network.state_dict()[name])


def test_the_command_prints_and_draws_a_sweep(
    tmp_path: Path, corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "--weights", str(tiny_checkpoint(tmp_path / "tiny.safetensors"))]
    command += ["--data", str(tmp_path / "data"), "--keep", "0.5,0.7/0.9/0.8"]
    assert main([*command, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [(row["sketch"], row["photo"], row["cross"]) for row in result["keep"]] == [(0.5, 0.5, 1.0), (0.7, 0.9, 0.8)]
    assert set(result["keep"][0]["methods"]) == {"rn", "ret"}
    assert result["keep"][0]["pair_macs"] == costs(tiny_config(keep_sketch=0.5, keep_photo=0.5)).pair_macs
    assert main(command) == 0
    assert "0.7/0.9/0.8" in capsys.readouterr().out
    assert main([*command, "--csv", "x.csv"]) == 2
    assert "--keep is for category protocols" in capsys.readouterr().err
    pytest.importorskip("matplotlib", reason="the extra train")
    assert main([*command, "--plot", str(tmp_path / "keep.svg")]) == 0
    assert "mAP@all" in (tmp_path / "keep.svg").read_text()
