"""The arithmetic of int8 products: the same on each processor, with and without VNNI."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from sketch_search.model import load
from sketch_search.model.engine import default_checkpoint, read_files, unit
from sketch_search.model.engine.graphs import PAIRS, PHOTO_VIT, SECOND_VIT, VIT, find_graphs
from sketch_search.model.engine.runtime import OnnxEngine
from sketch_search.model.engine.tokens import Floats, quantize, round_matrix
from tests.pictures import SHAPES, photo

# [Ret] of `photo_vectors()`, float16; `python -m tests.model.engine.test_arithmetic FILE` writes it anew.
DIGEST = Path(__file__).with_name("ret_of_generated_photos.npy")
HIDE_AVX512 = Path(__file__).parents[2] / "avx2_alone.c"
# Rounded to int8, these are multiplied as whole numbers.
PRODUCTS = ("DynamicQuantizeMatMul", "MatMulIntegerToFloat")


def photo_vectors() -> Floats:
    """Encodes 24 generated photos: their [Ret], (24, d)."""
    matcher = load()
    pictures = [photo(SHAPES[number % len(SHAPES)], 240, number) for number in range(24)]
    return np.stack([matcher.encode(matcher.prepare(one, "photo")[None], "photo").ret[0] for one in pictures])


def weights_in_int8(monkeypatch: pytest.MonkeyPatch, graph: str) -> dict[str, NDArray[np.int8]]:
    """Returns the matrices (inputs, outputs) that a graph of the default multiplies in int8, as it is opened."""
    given: dict[str, Any] = {}
    monkeypatch.setattr(OnnxEngine, "_session", lambda self, name, weights, threads: given.update({name: weights}))
    folder = find_graphs(default_checkpoint())
    assert folder is not None
    engine = OnnxEngine(read_files(default_checkpoint()), folder)
    _ = engine._pairs, engine._sketch_vit, engine._photo_vit, engine._second_vit
    nodes = onnx.load(folder / f"{graph}.onnx", load_external_data=False).graph.node
    return {node.input[1]: given[graph][node.input[1]] for node in nodes if node.op_type in PRODUCTS}


def added_in_16_bits(steps: NDArray[np.uint8], matrix: NDArray[np.int8]) -> NDArray[np.int64]:
    """Multiplies (n, inputs) and (inputs, outputs) as AVX2 does: two products are added in 16 bits, which saturate."""
    products = steps.astype(np.int64)[:, :, None] * matrix.astype(np.int64)
    return (products[:, ::2] + products[:, 1::2]).clip(-(1 << 15), (1 << 15) - 1).sum(axis=1)


@pytest.mark.parametrize("graph", [VIT, PHOTO_VIT, SECOND_VIT, PAIRS])
def test_no_two_products_exceed_the_16_bits_in_which_avx2_adds_them(
    monkeypatch: pytest.MonkeyPatch, graph: str
) -> None:
    matrices = weights_in_int8(monkeypatch, graph)
    assert len(matrices) >= 4
    for name, matrix in matrices.items():
        assert matrix.dtype == np.int8, name
        pairs = matrix.astype(np.int64).reshape(-1, 2, matrix.shape[1])
        most = 255 * max(np.maximum(pairs, 0).sum(axis=1).max(), np.maximum(-pairs, 0).sum(axis=1).max())
        assert most < 1 << 15, name


def test_rows_are_added_as_avx2_adds_them_without_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = np.random.default_rng(0).integers(0, 256, (4, 192), dtype=np.uint8)
    matrix = weights_in_int8(monkeypatch, SECOND_VIT)["blocks.3.qkv.weight"]
    exact = steps.astype(np.int64) @ matrix.astype(np.int64)
    np.testing.assert_array_equal(added_in_16_bits(steps, matrix), exact)
    # Rows that are all as large as they may be, and rounded to the full range, are not added rightly.
    wide = quantize(np.full((8, 192), 0.5, np.float32))[0].T
    assert (added_in_16_bits(steps, wide) != steps.astype(np.int64) @ wide.astype(np.int64)).any()


def test_a_matrix_is_rounded_by_at_most_half_a_step() -> None:
    matrix = np.random.default_rng(1).normal(size=(64, 33)).astype(np.float32)
    matrix[5] = 0
    steps, scales = round_matrix(matrix)
    assert np.abs(steps * scales[:, None] - matrix).max() <= scales.max() / 2
    assert scales[5] == 0
    # Most rows have no two large neighbours, and keep more than the 64 steps that any two could have.
    assert np.median(np.abs(steps).max(axis=1)) > 90


def test_photos_have_the_same_vectors_on_this_processor() -> None:
    expected = np.load(DIGEST).astype(np.float32)
    assert (unit(photo_vectors()) * unit(expected)).sum(axis=1).min() > 0.999


def test_photos_have_the_same_vectors_on_a_processor_with_avx2_alone(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    features = Path("/proc/cpuinfo").read_text("utf-8").split() if sys.platform == "linux" else []
    if compiler is None or "cpuid_fault" not in features or "avx512f" not in features or "LD_PRELOAD" in os.environ:
        pytest.skip("needs a C compiler and a processor with AVX512 that is not hidden and whose cpuid can be trapped")
    library, vectors = tmp_path / "avx2.so", tmp_path / "vectors.npy"
    subprocess.run([compiler, "-shared", "-fPIC", HIDE_AVX512, "-o", library], check=True, timeout=60)
    program = [sys.executable, "-m", "tests.model.engine.test_arithmetic", str(vectors)]
    subprocess.run(program, env={**os.environ, "LD_PRELOAD": str(library)}, check=True, timeout=300)
    here, there, expected = (
        unit(rows.astype(np.float32)) for rows in (photo_vectors(), np.load(vectors), np.load(DIGEST))
    )
    assert (there * expected).sum(axis=1).min() > 0.999
    # Other instructions computed them: the last bits differ.
    assert not np.array_equal(there, here)


if __name__ == "__main__":
    np.save(sys.argv[1], photo_vectors())
