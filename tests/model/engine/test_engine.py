"""The engine that needs no PyTorch, beside the network of PyTorch with the weights that come with the package."""

import dataclasses
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from sketch_search import model
from sketch_search.model import load, where_it_computes
from sketch_search.model.commands import main
from sketch_search.model.engine import (
    METHODS,
    PRESETS,
    Calibration,
    Modality,
    Tokens,
    average_variants,
    default_checkpoint,
    file_sha256,
    read_files,
    sketch_variants,
    unit,
)
from sketch_search.model.engine.files import PACKAGED, PHOTO_SIDE_NAME
from sketch_search.model.engine.graphs import find_graphs, write_graphs
from sketch_search.model.engine.runtime import OnnxEngine
from sketch_search.model.engine.tokens import Floats
from sketch_search.model.errors import ModelError
from sketch_search.model.images import Preprocessing
from sketch_search.model.matcher import Matcher
from sketch_search.model.metrics import category_metrics
from sketch_search.model.search import encode_things
from sketch_search.model.torch import TorchEngine, from_backbone
from sketch_search.model.torch.checkpoint import load_network, photo_side_tensors, save_checkpoint
from sketch_search.model.torch.zse import Captured
from sketch_search.training.corpus import read_protocol
from sketch_search.training.evaluation.figures import relevance
from sketch_search.training.evaluation.scoring import PreparedPictures, encode_both
from tests.networks import tiny_checkpoint
from tests.pictures import SHAPES, drawing, photo
from tests.programs import run_python
from tests.requirements import needs_shared_data

# How far aligned tokens may lie from those in float32.
ROUNDED = 0.05


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_graphs(read_files(default_checkpoint()).config, tmp_path_factory.mktemp("graphs"))


@pytest.fixture(scope="module")
def engine(graphs: Path) -> OnnxEngine:
    return OnnxEngine(read_files(default_checkpoint()), graphs)


@pytest.fixture(scope="module")
def by_torch() -> TorchEngine:
    return TorchEngine(load_network(default_checkpoint()))


@pytest.fixture(scope="module")
def photos(engine: OnnxEngine) -> Floats:
    return np.stack([prepared(engine, photo(name, 240, seed), "photo") for seed, name in enumerate(("star", "cross"))])


@pytest.fixture(scope="module")
def sketch(engine: OnnxEngine) -> Floats:
    return prepared(engine, drawing("star", 256, 1), "sketch")


def prepared(engine: OnnxEngine, picture: Image.Image, modality: str) -> Floats:
    config = engine.config
    return Preprocessing(config.image_size, config.mean, config.std).prepare(picture, modality)


def cosines(ours: Floats, theirs: Floats) -> Floats:
    return (unit(ours) * unit(theirs)).sum(axis=-1)


def test_encodings_match_pytorch(engine: OnnxEngine, by_torch: TorchEngine, photos: Floats, sketch: Floats) -> None:
    shown = by_torch.encode(photos, "photo")
    drawn = average_variants(by_torch.encode(sketch_variants(sketch, 3), "sketch"))
    ours = average_variants(engine.encode(sketch_variants(sketch, 3), "sketch"))
    assert cosines(engine.encode(photos, "photo").ret, shown.ret).min() > 0.99
    assert cosines(ours.ret, drawn.ret).min() > 0.99
    assert drawn.summary is not None
    assert ours.summary is not None
    assert cosines(ours.summary, drawn.summary).min() > 0.99


class Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations that Python asks PyTorch for: on a GPU each takes as long as what it computes."""

    count = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return operation(*args, **(kwargs or {}))


def test_a_finished_sketch_takes_a_gpu_one_pass_and_fewer_than_330_calls_of_pytorch(by_torch: TorchEngine) -> None:
    matcher = Matcher(by_torch, "")
    matcher.device = "cuda"
    with Calls() as calls:  # type: ignore[no-untyped-call]
        divided = matcher.divide(matcher.preprocessing.drawing(drawing("star", 256, 1)))
        (thing,) = encode_things(matcher, divided, variants=None)
    assert 100 < calls.count < 330
    matcher.kept.clear()
    again = matcher.encode(matcher.preprocessing.normalise(divided.things[0].pixels)[None], "sketch")
    np.testing.assert_allclose(thing.tokens.features, again.features, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_replays_its_pass_for_each_sketch(by_torch: TorchEngine, sketch: Floats) -> None:
    on_gpu = TorchEngine(load_network(default_checkpoint()).to("cuda"))
    for variants in (sketch_variants(sketch, 3), sketch_variants(sketch, 3)[::-1].copy()):
        (ours, patches), (theirs, expected) = on_gpu.encode_whole(variants), by_torch.encode_whole(variants)
        assert cosines(ours.features, theirs.features).min() > 0.999
        assert cosines(patches, expected).min() > 0.999
    assert isinstance(on_gpu.captured[3, True], Captured)


def test_regions_are_those_of_pytorch_and_the_twin(engine: OnnxEngine, by_torch: TorchEngine, photos: Floats) -> None:
    ours, theirs = engine.encode(photos, "photo").regions, by_torch.encode(photos, "photo").regions
    assert ours is not None
    assert theirs is not None
    assert ours.shape == theirs.shape == (len(photos), engine.config.regions, engine.config.region_width)
    assert np.linalg.norm(ours, axis=-1) == pytest.approx(1, abs=1e-5)
    assert np.median(cosines(ours, theirs)) > 0.95
    assert load("weights/zero-shot.safetensors").photo_sha256 == load().photo_sha256


def test_pairs_get_pytorchs_logits(engine: OnnxEngine, by_torch: TorchEngine, photos: Floats, sketch: Floats) -> None:
    drawn, shown = engine.encode(sketch[None], "sketch"), engine.encode(photos, "photo")
    np.testing.assert_allclose(engine.relate(drawn, shown), by_torch.relate(drawn, shown), atol=0.005)
    ours, theirs = engine.align(drawn, shown[:1]), by_torch.align(drawn, shown[:1])
    assert theirs is not None
    for name in ("sketch_to_photo", "photo_to_sketch"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=1e-4)
    for name in ("sketch", "photo"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=ROUNDED)
    for name in ("scale", "sketch_worth", "photo_worth"):
        np.testing.assert_allclose(getattr(ours.matching, name), getattr(theirs.matching, name), atol=0.002)


def test_observing_a_photo_gives_the_tokens_of_a_search_and_all_patches(engine: OnnxEngine, photos: Floats) -> None:
    seen, grid = engine.observe(photos[:1], "photo"), engine.config.grid
    searched = engine.encode(photos[:1], "photo")
    assert seen.everything is not None
    assert seen.local is not None
    assert seen.everything.positions.tolist() == [list(range(grid**2))]
    assert cosines(seen.tokens.ret, searched.ret).min() > 0.999
    assert np.flatnonzero(seen.attention.kept[0]).tolist() == seen.tokens.positions[0].tolist()
    assert seen.attention.blocks.shape == (engine.config.depth, engine.config.heads, grid, grid)
    sums = seen.attention.heads.sum(axis=(1, 2))
    assert (sums > 0.5).all()
    assert (sums < 1).all()
    np.testing.assert_allclose(np.linalg.norm(seen.local, axis=1), 1, atol=1e-5)


def test_a_sketch_is_observed_with_the_attention_of_its_own_patches(engine: OnnxEngine, sketch: Floats) -> None:
    seen = engine.observe(sketch_variants(sketch, 3), "sketch")
    expected = average_variants(engine.encode(sketch_variants(sketch, 3), "sketch"))
    np.testing.assert_allclose(seen.tokens.features, expected.features, atol=1e-4)
    assert seen.everything is None
    assert np.flatnonzero(seen.attention.kept[0]).tolist() == seen.tokens.positions[0].tolist()


def test_export_writes_graphs_that_hold_no_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(default_checkpoint()), str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("wrote ")
    (folder,) = tmp_path.iterdir()
    assert sorted(file.stem for file in folder.glob("*.onnx")) == ["pairs", "photo-vit", "second-vit", "vit"]
    assert len([*folder.iterdir()]) == 4
    assert sum(file.stat().st_size for file in folder.iterdir()) < 200_000
    assert main(["export", str(tiny_checkpoint(tmp_path / "tiny.safetensors")), str(tmp_path)]) == 2
    assert "without a photo side, which only PyTorch runs" in capsys.readouterr().err


def test_graphs_are_found_where_export_writes(graphs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr("sketch_search.model.engine.graphs.PACKAGED", tmp_path)
    checkpoint = Path(shutil.copy(default_checkpoint(), tmp_path / "network.safetensors"))
    beside = Path(shutil.copytree(graphs, tmp_path / "beside" / graphs.name))
    assert find_graphs(Path(shutil.copy(checkpoint, tmp_path / "beside"))) is None
    assert main(["export", str(checkpoint)]) == 0
    assert find_graphs(checkpoint) == tmp_path / "data" / "sketch-search" / beside.name

    def homeless(*_: object, **__: object) -> str:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr("platformdirs.user_data_dir", homeless)
    assert find_graphs(checkpoint) is None


ARRAYS = "projection.axes prior.prototypes vocabulary.directions encoder.head.centre encoder.position "
ARRAYS += "encoder.tuning.fc1_bias relation.scale cross.photo.ffn.3.weight relation.sketch_worth.bias"


@pytest.mark.parametrize("name", ARRAYS.split())
def test_a_checkpoint_without_one_of_its_arrays_is_refused(name: str, tmp_path: Path) -> None:
    files = read_files(default_checkpoint())
    del files.arrays[name]
    with pytest.raises(ModelError, match="does not hold the tensors of its configuration"):
        OnnxEngine(files, tmp_path)


def test_a_missing_or_damaged_graph_is_named_with_its_command(graphs: Path, tmp_path: Path, photos: Floats) -> None:
    files, folder = read_files(default_checkpoint()), Path(shutil.copytree(graphs, tmp_path / graphs.name))
    (folder / "photo-vit.onnx").write_bytes(b"no graph")
    for _ in ("damaged", "missing"):
        with pytest.raises(ModelError, match="rebuild it by sketch-search model export"):
            OnnxEngine(files, folder).encode(photos, "photo")
        (folder / "photo-vit.onnx").unlink(missing_ok=True)


def test_onnx_runtime_reports_nothing_and_writes_nothing_into_the_users_folder(tmp_path: Path) -> None:
    dropped = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    done = run_python("-c", "import model.engine.runtime", environment=kept | {"HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())


@needs_shared_data
def test_both_engines_find_the_same_photos_of_classes_that_training_left_out(by_torch: TorchEngine) -> None:
    corpus = read_protocol("val").subsample(12, 40)
    found, precision = [], []
    for matcher in (load(variants=1), Matcher(by_torch, "by PyTorch", variants=1)):
        scores = matcher.scores(*encode_both(matcher, corpus))
        found.append(np.argsort(-scores, axis=1)[:, :5])
        precision.append(category_metrics(scores, relevance(corpus))["map_all"])
    same = [len(set(ours) & set(theirs)) for ours, theirs in zip(*found, strict=True)]
    assert np.mean(same) > 4.65
    assert abs(precision[0] - precision[1]) < 0.02


@pytest.fixture(scope="module")
def matcher(tmp_path_factory: pytest.TempPathFactory) -> Matcher:
    path = tiny_checkpoint(
        tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors", methods=("rn", "ret", "fused"), fusion=0.5
    )
    return model.load(path, dtype="float32")


@pytest.fixture(scope="module")
def sketches(matcher: Matcher) -> Tokens:
    images = [drawing(shape) for shape in ("circle", "square", "star")]
    return matcher.encode(np.stack([matcher.prepare(image, "sketch") for image in images]), "sketch")


@pytest.fixture(scope="module")
def shown(matcher: Matcher) -> Tokens:
    images = [photo(shape, seed=seed) for seed in range(4) for shape in ("circle", "square", "star")]
    return matcher.encode(np.stack([matcher.prepare(image, "photo") for image in images]), "photo")


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_scores_ignore_batch_and_order(data: st.DataObject, matcher: Matcher, sketches: Tokens, shown: Tokens) -> None:
    method = data.draw(st.sampled_from(METHODS))
    whole = matcher.scores(sketches, shown, method)
    order = np.array(data.draw(st.permutations(range(len(shown)))))
    cut = data.draw(st.integers(1, len(shown) - 1))
    parts = [matcher.scores(sketches, shown[part], method) for part in (order[:cut], order[cut:])]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole[:, order], atol=1e-4)
    row = data.draw(st.integers(0, len(sketches) - 1))
    np.testing.assert_allclose(matcher.scores(sketches[row : row + 1], shown, method)[0], whole[row], atol=1e-4)


def test_scores_by_each_method_are_what_their_names_say(matcher: Matcher, sketches: Tokens, shown: Tokens) -> None:
    together = matcher.scores_by(sketches, shown, METHODS)
    for method, scores in together.items():
        assert scores.shape == (3, 12)
        assert scores.dtype == np.float32
        assert np.array_equal(scores, matcher.scores(sketches, shown, method))
    assert np.array_equal(matcher.scores(sketches, shown), together[matcher.best_method])
    relation, ret = together["rn"].astype(np.float64), together["ret"]
    assert ((relation > 0) & (relation < 1)).all()
    distances = np.linalg.norm(unit(sketches.ret)[:, None] - unit(shown.ret)[None], axis=-1)
    np.testing.assert_allclose(ret, -distances, atol=1e-4)
    fused = np.log(relation / (1 - relation)) + 0.5 * ret
    np.testing.assert_allclose(together["fused"], fused, atol=1e-3, rtol=1e-4)


def test_a_method_that_was_not_trained_and_images_of_another_size_are_refused(tmp_path: Path) -> None:
    matcher = model.load(tiny_checkpoint(tmp_path / "ret.safetensors", methods=("ret",), best_method="ret"))
    tokens = matcher.encode(matcher.prepare(drawing("star"), "sketch")[None], "sketch")
    with pytest.raises(ModelError, match="cannot score by 'rn', only by ret"):
        matcher.scores(tokens, tokens, "rn")
    with pytest.raises(ModelError, match=r"images must be \(b, 3, 64, 64\)"):
        matcher.encode(np.zeros((1, 3, 32, 64), np.float32), "photo")
    with pytest.raises(ModelError, match="not raw pixels in uint8"):
        matcher.encode(np.zeros((1, 3, 64, 64), np.uint8), "photo")
    with pytest.raises(ModelError, match=r"not raw pixels in torch\.uint8"):
        matcher.observe(torch.zeros((3, 64, 64), dtype=torch.uint8), "photo")
    for wrong in ("foto", "sketches"):
        kind: Any = wrong
        with pytest.raises(ModelError, match=f"a picture is a 'sketch' or a 'photo', not '{wrong}'"):
            matcher.encode(np.zeros((1, 3, 64, 64), np.float32), kind)
        with pytest.raises(ModelError, match=f"not '{wrong}'"):
            PreparedPictures((), kind, matcher.preprocessing)


def test_zse_sbir_on_a_photo_side_runs_without_pytorch_as_with_it(tmp_path: Path) -> None:
    config = dataclasses.replace(PRESETS["zse-s14"], photo_side=file_sha256(PACKAGED / PHOTO_SIDE_NAME))
    torch.manual_seed(0)
    network = from_backbone(config, photo_side_tensors(PACKAGED / PHOTO_SIDE_NAME))
    for name, value in network.named_parameters():
        if value.ndim == 1 and not name.startswith("encoder."):
            value.data += 0.2 * torch.randn_like(value)
    trained = Calibration(methods=("rn", "ret"), best_method="rn")
    save_checkpoint(network.with_calibration(trained), tmp_path / "zse.safetensors")
    ours, theirs = load(tmp_path / "zse.safetensors"), load(tmp_path / "zse.safetensors", dtype="float32")
    assert (ours.dtype, theirs.dtype) == ("int8", "float32")
    pictures = np.stack([ours.prepare(photo(name, 240, 1), "photo") for name in SHAPES[:3]])
    sketch = ours.prepare(drawing("star", 256, 1), "sketch")[None]
    sides: tuple[tuple[Modality, Floats], ...] = (("photo", pictures), ("sketch", sketch))
    for modality, looked_at in sides:
        one, other = (matcher.encode(looked_at, modality) for matcher in (ours, theirs))
        near = cosines(one.features, other.features)
        assert near[:, 0].min() > 0.97
        assert near.mean() > 0.96
        assert (one.positions == other.positions).all()
    drawn, shown = theirs.encode(sketch, "sketch", 1), theirs.encode(pictures, "photo")
    np.testing.assert_allclose(ours.engine.relate(drawn, shown), theirs.engine.relate(drawn, shown), atol=0.005)
    aligned = [matcher.engine.align(drawn, shown[:1]) for matcher in (ours, theirs)]
    for name in ("sketch_to_photo", "photo_to_sketch"):
        np.testing.assert_allclose(getattr(aligned[0], name), getattr(aligned[1], name), atol=1e-4)
    for name in ("sketch", "photo", "lost"):
        np.testing.assert_allclose(getattr(aligned[0], name), getattr(aligned[1], name), atol=ROUNDED)
    seen, looked = (matcher.engine.observe(sketch, "sketch").attention for matcher in (ours, theirs))
    np.testing.assert_allclose(seen.layers, looked.layers, atol=0.02)
    assert [kept.tolist() for kept in seen.kept] == [kept.tolist() for kept in looked.kept]


@pytest.mark.parametrize(
    ("driver", "torch", "device", "said"),
    [
        (True, True, "auto", "the GPU"),
        (True, False, "auto", "the CPU; to use the GPU: pip install 'sketch-search[gpu]'"),
        (False, True, "auto", "the CPU"),
        (True, True, "cpu", "the CPU"),
    ],
)
def test_a_gpu_is_used_where_pytorch_is_installed_and_else_the_remedy_is_named(
    driver: bool, torch: bool, device: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sketch_search.model.loading._has_driver", lambda: driver)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: SimpleNamespace() if torch else None)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: True)))
    assert where_it_computes(device) == said
