import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sketch_search.model import engine
from sketch_search.model.engine.graphs import own_folder, write_graphs
from sketch_search.model.errors import ModelError
from sketch_search.model.training.checkpoint import load_network, read_photo_side, save_checkpoint, save_photo_side
from sketch_search.model.training.commands import main
from sketch_search.model.training.network import Network, TorchEngine
from sketch_search.model.training.network.two_sided import TwoSidedEncoder
from sketch_search.model.training.network.vit import EncoderTrace
from tests.networks import matcher_of, randn
from tests.pictures import drawing, photo

SMALL = dataclasses.replace(
    engine.TWO_SIDED,
    width=24,
    heads=2,
    depth=2,
    image_size=112,
    sketch_size=84,
    encoder_width=16,
    second_width=8,
    second_heads=1,
    cross_heads=2,
    cross_ffn=16,
)
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


def test_in_bfloat16_both_sides_point_where_they_point_in_float32() -> None:
    exact, fast = two_sided(), two_sided().set_precision(torch.bfloat16)
    assert isinstance(fast.encoder, TwoSidedEncoder)
    side = fast.encoder.photo_side
    assert side.second_vit is not None
    assert side.vit.fc1.dtype == side.second_vit.fc1.dtype == torch.bfloat16
    modalities: tuple[engine.Modality, ...] = ("sketch", "photo")
    for modality in modalities:
        images = torch.randn(1, 3, 112, 112)
        one, other = (network.encode(images, modality).ret for network in (exact, fast))
        assert float((one * other).sum()) > 0.99


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


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=str)
def test_a_photo_has_the_same_tokens_if_the_last_block_computes_all(dtype: torch.dtype, tolerance: float) -> None:
    network, images = two_sided().set_precision(dtype), torch.randn(1, 3, 112, 112)
    alone, traced = network.encode(images, "photo"), TorchEngine(network).observe(images.numpy(), "photo").tokens
    assert np.array_equal(alone.positions.numpy(), traced.positions)
    np.testing.assert_allclose(alone.features.float().numpy(), traced.features, atol=tolerance)


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
    assert "give it words with sketch-search model words" in capsys.readouterr().out
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
