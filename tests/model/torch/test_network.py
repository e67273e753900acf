import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

from sketch_search.model import engine
from sketch_search.model.engine import ZseConfig, preset
from sketch_search.model.engine.config import kept_count
from sketch_search.model.engine.graphs import own_folder, write_graphs
from sketch_search.model.errors import ModelError
from sketch_search.model.torch import (
    AnchorConfig,
    ClipAtConfig,
    Network,
    VitLayout,
    anchor_network_from,
    clip_at_network_from,
)
from sketch_search.model.torch.checkpoint import load_network, read_photo_side, save_checkpoint, save_photo_side
from sketch_search.model.torch.relation import select_tokens
from sketch_search.model.torch.vit import EncoderTrace
from sketch_search.model.torch.zse import from_backbone
from sketch_search.training.commands import main
from tests.model import plain
from tests.networks import matcher_of, randn, small_backbone, small_vit, tiny_config, tiny_network
from tests.pictures import drawing, photo

CASES = [
    {},
    {"relation": "kernel-mlp"},
    {"relation": "kernel-mlp", "relation_ret": False, "keep_sketch": 1.0, "keep_photo": 1.0},
    {"relation": "kernel-mlp", "keep_sketch": 0.9, "keep_photo": 0.2},
    {"keep_sketch": 0.5, "keep_photo": 0.9},
    {"tokenizer": "patch"},
    {"cross_attention": False},
    {"released_value_from_query": True},
    {"keep_sketch": 0.5, "keep_photo": 0.9, "keep_cross": 0.6},
    {"relation": "kernel-mlp", "keep_sketch": 0.9, "keep_photo": 0.5, "keep_cross": 0.1},
    {"relation": "pair-mlp", "relation_ret": False, "keep_photo": 0.3},
    {"relation": "kernel-mlp", "relation_ret": False, "ret": "mean", "keep_sketch": 1.0, "keep_photo": 1.0},
]


def pictures(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, 64, 64, generator=generator) * 2 - 1


@pytest.mark.parametrize("overrides", CASES, ids=str)
def test_scores_agree_with_a_plain_version_of_the_papers_equations(overrides: dict[str, object]) -> None:
    network = tiny_network(seed=3, **overrides)
    assert isinstance(network.config, ZseConfig)
    matcher = matcher_of(network, variants=1)
    sketches, photos = pictures(2, 1), pictures(2, 2)
    drawn, shown = matcher.encode(sketches.numpy(), "sketch"), matcher.encode(photos.numpy(), "photo")
    logits = matcher.relation_logits(drawn, shown)
    expected = torch.tensor(
        [[plain.relation_logit(network.config, network.state_dict(), s, p) for p in photos] for s in sketches]
    )
    spread = float(expected.std())
    assert spread > 1e-4, "the pairs must differ for the comparison to mean anything"
    np.testing.assert_allclose(logits, expected.numpy(), atol=min(2e-4, spread / 10), rtol=2e-4)


@pytest.mark.parametrize("relation", ["kernel-mlp", "pair-mlp", "best-match"])
def test_every_relation_network_reads_tokens_of_a_cross_attention_in_bfloat16(relation: str) -> None:
    network = tiny_network(seed=3, relation=relation, relation_ret=False)
    exact = matcher_of(network)
    tokens = exact.encode(pictures(2, 1).numpy(), "sketch"), exact.encode(pictures(3, 2).numpy(), "photo")
    expected = exact.relation_logits(*tokens)
    rounded = matcher_of(network.set_precision(torch.bfloat16)).relation_logits(*tokens)
    assert not np.array_equal(rounded, expected)
    np.testing.assert_allclose(rounded, expected, atol=0.25, rtol=0.05)


def test_a_resnet_gives_a_token_for_each_patch_and_their_mean_whatever_is_beside_it_in_a_batch() -> None:
    config = tiny_config(encoder="resnet50", ret="mean", keep_sketch=1.0, keep_photo=1.0)
    weights = timm.create_model("resnet50", num_classes=0).state_dict()
    network, images = from_backbone(config, weights).train(), pictures(3, 1)
    torch.testing.assert_close(network.state_dict()["encoder.map.conv1.weight"], weights["conv1.weight"])
    tokens = network.encode(images, "photo")
    assert tokens.features.shape == (3, 17, 32)
    torch.testing.assert_close(tokens.ret, tokens.patches.mean(dim=1))
    torch.testing.assert_close(network.encode(images[:1], "photo").features, tokens.features[:1], atol=1e-4, rtol=1e-4)
    with pytest.raises(ModelError, match="starts from timm's resnet50"):
        from_backbone(config, small_backbone())


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"keep_cross": 0.0}, "keep rates must lie"),
        ({"keep_cross": 0.5, "cross_attention": False}, "keep_cross needs cross-attention"),
        ({"ret": "mean"}, "keep rates must be 1"),
        ({"encoder": "resnet50", "keep_sketch": 1.0, "keep_photo": 1.0}, "no .Ret. of its own"),
    ],
)
def test_parts_that_contradict_each_other_are_refused(fields: dict[str, object], why: str) -> None:
    with pytest.raises(ModelError, match=why):
        tiny_config(**fields)


def test_a_keep_rate_means_the_decimal_number_it_was_written_as() -> None:
    assert [kept_count(n, 0.7) for n in (196, 138, 97)] == [138, 97, 68]
    assert kept_count(30, 0.1) == 3
    assert kept_count(100, 0.07) == 7
    assert kept_count(3, 0.01) == 1


def test_selection_keeps_the_most_important_in_grid_order_and_the_first_of_equals() -> None:
    importance = torch.tensor([[0.1, 0.4, 0.2, 0.4, 0.4], [0.5, 0.0, 0.0, 0.0, 0.0]])
    assert select_tokens(importance, 2).tolist() == [[1, 3], [0, 1]]
    assert select_tokens(importance, 5).tolist() == [[0, 1, 2, 3, 4]] * 2


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        *(("zse-ti16", "vit_tiny_patch16_224"), ("zse-s16", "vit_small_patch16_224")),
        ("zse-b16", "vit_base_patch16_224.sam_in1k"),
    ],
)
def test_every_preset_starts_from_the_vit_of_its_size(name: str, tag: str) -> None:
    with torch.device("meta"):
        network = from_backbone(preset(name), timm.create_model(tag).state_dict())
    assert network.config == preset(name)


def test_new_networks_of_all_methods_encode_exactly_as_the_vit_they_start_from() -> None:
    weights, images = small_backbone(), randn(2, 3, 64, 64)
    layout = VitLayout(patch_size=16, width=32, depth=4, heads=2, mlp_width=64)
    zse = from_backbone(tiny_config(keep_sketch=1.0, keep_photo=1.0), weights).eval()
    anchored = anchor_network_from(AnchorConfig(name="a", vit=layout, image_size=64, anchors=()), weights).eval()
    prompted = clip_at_network_from(ClipAtConfig(name="c", vit=layout, image_size=64, prompts=0), weights).eval()
    with torch.inference_mode():
        expected = small_vit().forward_features(images)
        torch.testing.assert_close(zse.encode(images, "photo").features, expected)
        torch.testing.assert_close(anchored.retrieval_tokens(images), expected[:, :1])
        torch.testing.assert_close(prompted.encode(images, "photo").ret, expected[:, 0], atol=1e-5, rtol=1e-5)
    assert zse.calibration.methods == ("ret",)
    assert not zse.state_dict()["encoder.tokenizer.learnable.layers.6.weight"].any()


NARROW: dict[str, Any] = {"width": 24, "heads": 2, "depth": 2, "encoder_width": 16, "cross_heads": 2, "cross_ffn": 16}
SECOND: dict[str, Any] = {"second_width": 8, "second_heads": 1}
SMALL = dataclasses.replace(engine.TWO_SIDED, image_size=112, sketch_size=84, **NARROW, **SECOND)
TRAINED = engine.Calibration(methods=("rn", "ret", "fused"), best_method="fused", fusion=1.0, diffusion=0.3)


def two_sided(config: engine.TwoSidedConfig = SMALL, seed: int = 0) -> Network:
    """A network whose numbers are all random, so that none of them can be left out without a change."""
    torch.manual_seed(seed)
    network = Network(config, TRAINED)
    state = {name: value + 0.2 * torch.randn_like(value) for name, value in network.state_dict().items()}
    network.load_state_dict(state)
    return network.requires_grad_(False).eval()


def written(folder: Path, network: Network, name: str = "network.safetensors") -> Path:
    start = "encoder.photo_side."
    tensors = {key.removeprefix(start): v for key, v in network.state_dict().items() if key.startswith(start)}
    sha256 = save_photo_side(tensors, folder / "photo-side.safetensors")
    assert isinstance(network.config, engine.TwoSidedConfig)
    network.config = dataclasses.replace(network.config, photo_side=sha256)
    save_checkpoint(network, folder / name, engine.SeenClasses(frozenset({"egg", Path(name).stem})).note())
    return folder / name


@contextmanager
def written_with_graphs(folder: Path) -> Iterator[Path]:
    """A checkpoint that ONNX Runtime opens, here and in programs that are started within the block.

    By others they would import PyTorch, and by the default encode each picture for a quarter of a second.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(folder))
        checkpoint = written(folder, two_sided())
        write_graphs(engine.read_files(checkpoint).config, own_folder())
        yield checkpoint


def test_patches_of_a_smaller_sketch_are_reported_as_the_cells_of_the_photos_grid_below_their_centres() -> None:
    assert engine.cells_of_patches(6, 8).reshape(6, 6)[0].tolist() == [0, 2, 3, 4, 6, 7]
    assert engine.cells_of_patches(6, 8).reshape(6, 6)[:, 1].tolist() == [2, 18, 26, 34, 50, 58]
    assert engine.cells_of_patches(8, 8).tolist() == list(range(64))
    ink = torch.zeros(1, 1, 112, 112)
    ink[:, :, 84:, :28] = 1
    network, trace = two_sided(), EncoderTrace()
    tokens = network.encode(1 - ink.expand(-1, 3, -1, -1), "sketch", trace)
    assert tokens.positions.max() < 64
    assert trace.attention[0].shape == (1, 2, 64)
    assert float(trace.attention[-1].sum(dim=2).max()) < 1


def test_a_checkpoint_without_its_photo_side_gives_the_scores_it_had(tmp_path: Path) -> None:
    network = two_sided()
    path = written(tmp_path, network)
    read = load_network(path)
    # The matrices are kept in int8, so the network that was written first is not the one to compare with.
    again = two_sided()
    again.load_state_dict(again.state_dict() | read_photo_side(tmp_path / "photo-side.safetensors")[0])
    photos = torch.randn(2, 3, 112, 112)
    assert torch.allclose(read.encode(photos, "photo").features, again.encode(photos, "photo").features, atol=1e-5)
    assert path.stat().st_size < (tmp_path / "photo-side.safetensors").stat().st_size * 3
    assert not any("photo_side" in name for name in load_file(path))


def test_a_photo_side_that_is_another_one_or_damaged_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = written(tmp_path, two_sided())
    (tmp_path / "other").mkdir()
    written(tmp_path / "other", two_sided(seed=5))
    side = (tmp_path / "other" / "photo-side.safetensors").replace(tmp_path / "photo-side.safetensors")
    with pytest.raises(ModelError, match=r"needs the photo side .* put the photo-side.safetensors"):
        load_network(path)
    side.write_bytes(b"no tensors")
    with pytest.raises(ModelError, match="cannot be read as a photo side"):
        read_photo_side(side)


def test_a_pair_is_explained_by_all_patches_of_the_photo_with_the_scores_of_a_search() -> None:
    prior = engine.Prior(engine.unit(randn(8, SMALL.width).numpy()), 0.1, 1.5, 8.0)
    matcher = matcher_of(two_sided().prior_replaced(prior), variants=1)
    drawn, shown = drawing("circle", 200), photo("circle", 120).crop((0, 0, 120, 90))
    found = matcher.explain(drawn, shown)
    assert found.correspondence.shape == (SMALL.token_count("sketch") - 1, SMALL.grid**2)
    assert found.photo_cells.tolist() == list(range(SMALL.grid**2))
    sketches = matcher.encode(matcher.prepare(drawn, "sketch")[None], "sketch")
    photos = matcher.encode(matcher.prepare(shown, "photo")[None], "photo")
    scores = matcher.scores_by(sketches, photos, ("rn", "ret"))
    assert found.relation_score == pytest.approx(float(scores["rn"][0, 0]), abs=1e-5)
    assert found.ret_distance == pytest.approx(-float(scores["ret"][0, 0]), abs=1e-4)


def test_networks_are_averaged_with_the_first_calibration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prior = engine.Prior(torch.rand(3, SMALL.width).half().float().numpy(), 0.5, 1.5, 8.0)
    one = two_sided().prior_replaced(prior)
    other = two_sided().with_calibration(dataclasses.replace(TRAINED, fusion=2.0))
    with torch.no_grad():
        for parameter in other.cross.parameters():
            parameter.add_(0.5)
    paths = [written(tmp_path, network, f"{n}.safetensors") for n, network in enumerate((one, other))]
    mean = tmp_path / "mean.safetensors"
    assert main(["average", *map(str, paths), str(mean)]) == 0
    assert "give it words with python -m training words" in capsys.readouterr().out
    first, second, averaged = (load_network(path) for path in (*paths, mean))
    states = first.state_dict(), second.state_dict()
    for name, value in averaged.state_dict().items():
        torch.testing.assert_close(value, (states[0][name] + states[1][name]) / 2, atol=2e-3, rtol=2e-3, msg=name)
    assert averaged.prior is not None
    np.testing.assert_array_equal(averaged.prior.prototypes, prior.prototypes)
    assert dataclasses.replace(averaged.prior, prototypes=prior.prototypes) == prior
    assert averaged.calibration == first.calibration
    assert engine.seen_classes(mean) == engine.SeenClasses(frozenset({"egg", "0", "1"}))
    (tmp_path / "other").mkdir()
    wider = dataclasses.replace(SMALL, cross_ffn=2 * SMALL.cross_ffn)
    larger = written(tmp_path / "other", two_sided(wider), "larger.safetensors")
    assert main(["average", str(paths[0]), str(larger), str(mean)]) == 2
    assert "larger.safetensors and" in (told := capsys.readouterr().err)
    assert "have different configurations; average networks trained alike" in told
