from __future__ import annotations

import importlib.util
import json
import pickle
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import model
from model.checkpoint.conversion import convert, released_config, rename
from model.commands import main
from model.errors import ModelError
from model.matcher import Matcher
from model.network import Modality, Tokens
from model.network.zse import Network, as_zse
from tests.requirements import needs_shared_data
from tests.shared_data import golden


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_reference", golden("reference.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(golden("zse_reference.json").read_text())
    return content


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory, reference: ModuleType, figures: dict[str, Any]) -> Matcher:
    folder = tmp_path_factory.mktemp("released")
    weights = {name: torch.from_numpy(value) for name, value in reference.state_arrays(figures["seed"]).items()}
    content = {"model": weights, "epoch": 17, "map_all": np.float64(0.7), "precision_100": np.float64(0.8)}
    torch.save(content, folder / "released.pth")
    assert main(["convert", str(folder / "released.pth"), str(folder / "released.safetensors")]) == 0
    (folder / "released.pth").unlink()
    return model.load(folder / "released.safetensors", dtype=torch.float32)


@needs_shared_data
@pytest.mark.parametrize(
    ("drawn", "shown"),
    # Its encoder takes seconds for each picture.
    [([0], [0, 2]), pytest.param([0, 1], [0, 1, 2], marks=pytest.mark.soak)],
    ids=["some", "all"],
)
def test_a_released_checkpoint_gives_the_released_figures(
    drawn: list[int], shown: list[int], released: Matcher, reference: ModuleType, figures: dict[str, Any]
) -> None:
    def encoded(kind: Modality, count: int, rows: list[int]) -> Tokens:
        return released.encode(torch.from_numpy(reference.inputs(kind, count, figures["seed"]))[rows], kind)

    sketches = encoded("sketch", figures["sketches"], drawn)
    photos = encoded("photo", figures["photos"], shown)

    def close(actual: torch.Tensor, expected: Any, tolerance: float = 1e-5) -> None:
        torch.testing.assert_close(actual, torch.tensor(expected), atol=tolerance, rtol=0)

    def of_pairs(name: str) -> Any:
        return np.array(figures[name], np.float32)[np.ix_(drawn, shown)]

    tokens = figures["tokens_sketch0"]
    close(sketches.features[0, 0, :8], tokens["ret_first8"])
    close(sketches.features[0, 101, :8], tokens["token100_first8"])
    if len(drawn) == figures["sketches"]:
        assert float(sketches.features.mean()) == pytest.approx(tokens["mean"], abs=1e-5)
        assert float(sketches.features.std()) == pytest.approx(tokens["std"], abs=1e-5)
    close(photos.features[-1, 0, :8], figures["tokens_photo2"]["ret_first8"])
    close(photos.features[-1, 1, :8], figures["tokens_photo2"]["token0_first8"])

    network = as_zse(released.network)
    with torch.inference_mode():
        pair = network.align(network.project(sketches[:1], "sketch"), network.project(photos[:1], "photo"))
    close(pair[0].features[0, 0, :8], figures["cross_pair00"]["sketch_ret_first8"])
    close(pair[1].features[0, 0, :8], figures["cross_pair00"]["photo_ret_first8"])
    close(released.scores(sketches, photos, "rn"), of_pairs("relation_scores"))
    close(-released.scores(sketches, photos, "ret"), of_pairs("ret_distances"))


@needs_shared_data
def test_every_released_key_has_a_place_in_the_network() -> None:
    keys = json.loads(golden("zse_keys.json").read_text())
    with torch.device("meta"):
        expected = set(Network(released_config()).state_dict())
    renamed = {rename(key) for key in keys if not key.startswith("ca.encoder.layers.")}
    assert renamed == expected


class Hostile:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("this must never be printed",))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"model": Hostile()}, "not a released checkpoint of tensors and numbers alone"),
        ({"epoch": 3}, 'holds no "model" state dict'),
        ([1, 2], 'holds no "model" state dict'),
        ({"model": {"conv2d.weight": torch.zeros(2, 2)}}, "not a released ZSE-SBIR checkpoint"),
        ({"model": {"rn.rn.0.weight": torch.zeros(2744, 38416)}}, "relation network for 196 tokens"),
        ({"model": {"rn.rn.0.weight": torch.zeros(1728, 20736)}}, "relation network for 144 tokens"),
    ],
    ids=["hostile", "no state dict", "a list", "another network", "196 tokens", "144 tokens"],
)
def test_anything_but_a_released_checkpoint_is_refused_with_a_sentence(
    content: Any, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "odd.pth"
    torch.save(content, source)
    with pytest.raises(ModelError, match=sentence):
        convert(source, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()
    assert "never be printed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "data",
    [b"", b"not a checkpoint", b"text = 1\n", pickle.dumps({"model": 1}), b"\x09" + bytes(7) + b'{"a": 1} '],
    ids=["empty", "text", "text like a pickle", "pickle", "safetensors"],
)
@pytest.mark.parametrize("name", ["damaged.pth", "damaged.safetensors"])
def test_a_damaged_file_is_refused_with_a_sentence(data: bytes, name: str, tmp_path: Path) -> None:
    source = tmp_path / name
    source.write_bytes(data)
    with pytest.raises(ModelError, match="not a released checkpoint"):
        convert(source, tmp_path / "out.safetensors")


@pytest.mark.parametrize("module", ["numpy._core.multiarray", "numpy.core.multiarray"])
def test_numpy_scalars_are_admitted_by_their_new_and_their_old_name(module: str, tmp_path: Path) -> None:
    source = tmp_path / "scalar.pth"
    torch.save({"model": {}, "map_all": np.float64(0.5)}, source, _use_new_zipfile_serialization=False)
    data = source.read_bytes()
    assert b"numpy._core.multiarray" in data
    source.write_bytes(data.replace(b"numpy._core.multiarray", module.encode()))
    with pytest.raises(ModelError, match="not a released ZSE-SBIR checkpoint"):
        convert(source, tmp_path / "out.safetensors")


def test_a_missing_file_is_a_sentence_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(tmp_path / "none.pth"), str(tmp_path / "out.safetensors")]) == 2
    assert "there is no file" in capsys.readouterr().err
