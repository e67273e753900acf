"""Checkpoints are written and read as they are, and released files of ZSE-SBIR and CLIP-AT become such."""

import dataclasses
import json
import math
import pickle
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from sketch_search import model
from sketch_search.model import engine
from sketch_search.model.commands import main
from sketch_search.model.errors import ModelError, UserError
from sketch_search.model.matcher import Matcher
from sketch_search.model.torch import Tokens as Tensors
from sketch_search.model.torch import TorchEngine
from sketch_search.model.torch.checkpoint import convert, read_released, save_checkpoint
from sketch_search.model.torch.zse import as_zse, from_backbone, read_backbone
from tests import networks
from tests.pictures import drawing, photo
from tests.requirements import needs_shared_data
from tests.shared_data import golden


@pytest.mark.parametrize(
    ("record", "changes", "sentence"),
    [
        (networks.TINY, {"image_size": 70}, "not a multiple of patch_size"),
        (networks.TINY, {"heads": 3}, "not a multiple of heads"),
        (networks.TINY, {"keep_photo": 0.0}, "keep rates"),
        (networks.TINY, {"select_after": (9,)}, "beyond depth"),
        (networks.TINY, {"image_size": 48, "relation": "kernel-mlp"}, "even patch grid"),
        (networks.TINY, {"released_value_from_query": True, "keep_photo": 0.5}, "equal numbers"),
        (networks.TINY, {"select_after": (1,) * 3}, "must ascend"),
        (networks.TINY, {"words": (("dog",),) * 20_001}, "at most 20,000 words, not 20,001"),
        (networks.TINY, {"words": (("dog",) * 17,)}, "1 to 16 names, not 17"),
        (networks.TINY, {"words": (("",),)}, "must have letters"),
        (networks.TINY, {"words": (("d" * 101,),)}, "at most 100 characters"),
        (networks.TINY, {"words": (("dog", "d\x1bg"),)}, "control characters"),
        (networks.TINY, {"words": (("dog",), ("Dog",))}, "a unique name"),
        (networks.TINY, {"words": (("dog",),), "placed": 1}, "placed must be fewer than words"),
        (engine.TWO_SIDED, {"sketch_size": 238}, "larger than image_size"),
        (engine.TWO_SIDED, {"second_heads": 7}, "not a multiple of its heads"),
        (networks.TINY_CALIBRATION, {"best_method": "fused"}, "best_method"),
        (networks.TINY_CALIBRATION, {"methods": ("fused",), "best_method": "fused"}, "fusion weight"),
        (networks.TINY_CALIBRATION, {"fusion": math.nan}, "fusion must lie in"),
        (networks.TINY_CALIBRATION, {"diffusion": -1.5}, "diffusion must lie in"),
        (networks.TINY_CALIBRATION, {"variants": 0}, "variants must be 1 to 3"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_impossible_configuration_or_calibration_is_refused_with_a_sentence(
    record: engine.ZseConfig | engine.TwoSidedConfig | engine.Calibration, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ModelError, match=sentence):
        dataclasses.replace(record, **changes)


def test_files_that_are_no_checkpoints_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sketch_search.model.engine.files.PACKAGED", tmp_path)
    with pytest.raises(ModelError, match="installation has no checkpoint 'default'; name a file with --weights FILE"):
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
    networks.tiny_checkpoint(path)
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
        ({"metadata": {"config": "[" * 100_000}}, "configuration cannot be read"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_damaged_and_foreign_checkpoints_are_refused(changes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    path = networks.tiny_checkpoint(tmp_path / "net.safetensors")
    tensors, metadata = load_file(path), engine.read_metadata(path) | changes.get("metadata", {})
    if "config" in changes:
        metadata["config"] = json.dumps({**dataclasses.asdict(networks.TINY), **changes["config"]})
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
        save_checkpoint(networks.tiny_network(), tmp_path / f"{number}.safetensors", notes)
        files.append((tmp_path / f"{number}.safetensors").read_bytes())
    assert len(set(files)) == 1
    assert notes.items() <= engine.read_metadata(tmp_path / "0.safetensors").items()


def test_a_checkpoint_replaces_checkpoints_alone(tmp_path: Path) -> None:
    network, target = from_backbone(networks.tiny_config(), networks.small_backbone()), tmp_path / "network.safetensors"
    for _ in range(2):
        save_checkpoint(network, target)
    target.write_text("no checkpoint")
    with pytest.raises(UserError, match="is not overwritten"):
        save_checkpoint(network, target)
    assert target.read_text() == "no checkpoint"


def test_an_untrained_relation_network_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "new.safetensors"
    save_checkpoint(from_backbone(networks.tiny_config(), networks.small_backbone()), target)
    assert main(["info", str(target)]) == 0
    out = capsys.readouterr().out
    assert "ret (best: ret)" in out
    assert "relation network" in out
    assert "untrained" in out
    assert model.load(target, dtype="float32").methods == ("ret",)


def test_a_backbone_of_another_size_or_kind_is_refused() -> None:
    with pytest.raises(ModelError, match=r"Missing key.*use the preset or recipe of its size"):
        from_backbone(engine.preset("zse-ti16"), networks.small_backbone())
    with pytest.raises(ModelError, match=r"Missing key.*cls_token"):
        from_backbone(networks.tiny_config(), {k: v for k, v in networks.small_backbone().items() if k != "cls_token"})
    with pytest.raises(ModelError, match="neither a safetensors file nor a timm model tag"):
        read_backbone("no_such_model")


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    return runpy.run_path(str(golden("reference.py")))


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    return json.loads(golden("zse_reference.json").read_text())


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory, reference: dict[str, Any], figures: dict[str, Any]) -> Matcher:
    folder = tmp_path_factory.mktemp("released")
    weights = {name: torch.from_numpy(value) for name, value in reference["state_arrays"](figures["seed"]).items()}
    content = {"model": weights, "epoch": 17, "map_all": np.float64(0.7), "precision_100": np.float64(0.8)}
    torch.save(content, folder / "released.pth")
    assert main(["convert", str(folder / "released.pth"), str(folder / "released.safetensors")]) == 0
    (folder / "released.pth").unlink()
    return model.load(folder / "released.safetensors", dtype="float32")


@needs_shared_data
@pytest.mark.parametrize(
    ("drawn", "shown"),
    # Its encoder takes seconds for each picture.
    [([0], [0, 2]), pytest.param([0, 1], [0, 1, 2], marks=pytest.mark.soak)],
    ids=["some", "all"],
)
def test_a_released_checkpoint_gives_the_released_figures(
    drawn: list[int], shown: list[int], released: Matcher, reference: dict[str, Any], figures: dict[str, Any]
) -> None:
    def encoded(kind: engine.Modality, count: int, rows: list[int]) -> engine.Tokens:
        return released.encode(reference["inputs"](kind, count, figures["seed"])[rows], kind)

    sketches = encoded("sketch", figures["sketches"], drawn)
    photos = encoded("photo", figures["photos"], shown)

    def close(actual: engine.Floats, expected: Any, tolerance: float = 1e-5) -> None:
        np.testing.assert_allclose(actual, expected, atol=tolerance, rtol=0)

    def of_pairs(name: str) -> Any:
        return np.array(figures[name], np.float32)[np.ix_(drawn, shown)]

    tokens = figures["tokens_sketch0"]
    close(sketches.features[0, 0, :8], tokens["ret_first8"])
    close(sketches.features[0, 101, :8], tokens["token100_first8"])
    if len(drawn) == figures["sketches"]:
        assert float(sketches.features.mean()) == pytest.approx(tokens["mean"], abs=1e-5)
        assert float(sketches.features.std(ddof=1)) == pytest.approx(tokens["std"], abs=1e-5)
    close(photos.features[-1, 0, :8], figures["tokens_photo2"]["ret_first8"])
    close(photos.features[-1, 1, :8], figures["tokens_photo2"]["token0_first8"])

    assert isinstance(released.engine, TorchEngine)
    network = as_zse(released.engine.network)
    with torch.inference_mode():
        arrays = [(t.features[:1], t.positions[:1]) for t in (sketches, photos)]
        first = [Tensors(*map(torch.from_numpy, pair)) for pair in arrays]
        pair = network.align(network.project(first[0], "sketch"), network.project(first[1], "photo"))
    close(pair[0].features[0, 0, :8].numpy(), figures["cross_pair00"]["sketch_ret_first8"])
    close(pair[1].features[0, 0, :8].numpy(), figures["cross_pair00"]["photo_ret_first8"])
    close(released.scores(sketches, photos, "rn"), of_pairs("relation_scores"))
    close(-released.scores(sketches, photos, "ret"), of_pairs("ret_distances"))


class Hostile:
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
    ],
    ids=["hostile", "no state dict", "a list", "another network", "196 tokens"],
)
def test_anything_but_a_released_checkpoint_is_refused_with_a_sentence(
    content: Any, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "odd.pth"
    torch.save(content, source)
    with pytest.raises(ModelError, match=sentence) as refused:
        convert(source, tmp_path / "out.safetensors")
    assert "can still be loaded" not in str(refused.value)
    assert not (tmp_path / "out.safetensors").exists()
    assert "never be printed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "data",
    [b"", b"not a checkpoint", b"text = 1\n", pickle.dumps({"model": 1}), b"\x09" + bytes(7) + b'{"a": 1} '],
    ids=["empty", "text", "text like a pickle", "pickle", "safetensors"],
)
@pytest.mark.parametrize("name", ["damaged.pth", "damaged.safetensors"])
def test_a_missing_or_damaged_file_is_refused_with_a_sentence(data: bytes, name: str, tmp_path: Path) -> None:
    source = tmp_path / name
    with pytest.raises(ModelError, match="no file at"):
        convert(source, tmp_path / "out.safetensors")
    source.write_bytes(data)
    with pytest.raises(ModelError, match="not a released checkpoint"):
        convert(source, tmp_path / "out.safetensors")


PROMPTS = 3


@pytest.fixture(scope="module")
def clip() -> Any:
    """A CLIP as OpenAI's: with another GELU than open_clip's own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return open_clip.CLIP(**networks.SMALL, quick_gelu=True).eval()


@pytest.fixture(scope="module")
def state(clip: Any) -> dict[str, torch.Tensor]:
    """Under the names of the public code: a model that has CLIP, and prompts for sketches and for photos."""
    found = {f"clip.{name}": tensor.half().float() for name, tensor in clip.state_dict().items()}
    clip.load_state_dict({name.removeprefix("clip."): tensor for name, tensor in found.items()})
    generator = torch.Generator().manual_seed(1)
    for name in ("sk_prompt", "img_prompt"):
        found[name] = torch.randn(PROMPTS, 64, generator=generator)
    return found


def lightning(state: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    callback = {"monitor": "val_loss", "best_model_score": torch.tensor(0.1), "best_model_path": "last.ckpt"}
    return {
        "epoch": 3,
        "global_step": 30,
        "pytorch-lightning_version": "1.5.0",
        "callbacks": {"ModelCheckpoint{'monitor': 'val_loss'}": callback},
        "optimizer_states": [{"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4}]}],
        "lr_schedulers": [],
        "state_dict": {name: t.half() if name.startswith("clip.visual.proj") else t for name, t in state.items()},
    }


@torch.no_grad()
def ret_of_clip(visual: Any, images: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
    """CLIP's image encoder computes this for CLIP-AT: prompts (k, width) stand behind the tokens of each picture."""
    patches = visual.conv1(images).flatten(2).transpose(1, 2)
    tokens = torch.cat([visual.class_embedding.expand(len(images), 1, -1), patches], dim=1)
    tokens = torch.cat([tokens + visual.positional_embedding, prompts.expand(len(images), -1, -1)], dim=1)
    return visual.ln_post(visual.transformer(visual.ln_pre(tokens))[:, 0]) @ visual.proj


def test_a_released_file_prepares_and_encodes_pictures_as_the_public_code_does(
    clip: Any, state: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(lightning(state), tmp_path / "last.ckpt")
    assert main(["convert", str(tmp_path / "last.ckpt"), str(tmp_path / "c.safetensors")]) == 0
    matcher = model.load(tmp_path / "c.safetensors")
    images = networks.randn(2, 3, 32, 32, seed=2)
    modalities: tuple[tuple[engine.Modality, str], ...] = (("sketch", "sk_prompt"), ("photo", "img_prompt"))
    for modality, name in modalities:
        expected = ret_of_clip(clip.visual, images, state[name])
        found = matcher.encode(images.numpy(), modality, variants=1).ret
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-5, rtol=1e-5)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    shown = matcher.prepare(photo("star", 96, 1).crop((0, 0, 96, 48)), "photo")
    for rows in (slice(0, 8), slice(24, 32)):
        np.testing.assert_allclose(shown[:, rows], np.broadcast_to((-mean / std)[:, None, None], (3, 8, 32)), rtol=1e-5)
    # Paper stays at the edges of a sketch: nothing is cropped.
    drawn = matcher.prepare(drawing("star", 96, 1), "sketch")
    np.testing.assert_allclose(drawn[:, 0, 0], (1 - mean) / std, rtol=1e-5)
    capsys.readouterr()
    assert main(["info", str(tmp_path / "c.safetensors")]) == 0
    said = capsys.readouterr().out
    assert all(text in said for text in ("clip-at-released", "converted from a released CLIP-AT checkpoint", "padding"))


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("entry", ["state_dict", "model", None])
def test_a_file_of_data_parallel_of_a_compiled_model_or_of_tensors_alone_is_read(
    prefix: str, entry: str | None, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    named = {prefix + name: tensor for name, tensor in state.items()}
    torch.save(named if entry is None else {entry: named}, tmp_path / "last.pth")
    read = read_released(tmp_path / "last.pth")
    assert list(read) == list(state)
    assert all(torch.equal(read[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"img_prompt": torch.zeros(3, 63)}, r"its prompts are not \(k, 64\)"),
        ({"sk_prompt": torch.zeros(2, 64)}, r"its prompts are not \(k, 64\)"),
        ({"clip.visual.proj": None}, "these are not the weights of a ViT of CLIP: 'projection.weight'"),
        ({"clip.visual.ln_pre.bias": None}, "do not fit the named ViT"),
        ({"sk_prompt": None}, "not a released ZSE-SBIR checkpoint"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    changes: dict[str, torch.Tensor | None], sentence: str, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    odd = {name: tensor for name, tensor in {**state, **changes}.items() if tensor is not None}
    torch.save({"state_dict": odd}, tmp_path / "odd.ckpt")
    with pytest.raises(ModelError, match=sentence):
        convert(tmp_path / "odd.ckpt", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()
