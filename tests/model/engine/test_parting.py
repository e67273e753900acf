import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from sketch_search.model import Matcher, load
from sketch_search.model.decoding import Job, decode_inline
from sketch_search.model.engine import Parting, default_checkpoint, parting, read_files, unit
from sketch_search.model.engine.config import TWO_SIDED
from sketch_search.model.engine.detector import BOXES, DETECTOR, KINDS, NO_KIND, SIZE, Detector, no_boxes
from sketch_search.model.engine.graphs import PAIRS, PHOTO_VIT, SECOND_VIT, VIT, find_graphs
from sketch_search.model.engine.parting import CUT, MOST_PIECES, SIDE, Pieces, join_pieces, part_repeated
from sketch_search.model.engine.runtime import OnnxEngine
from sketch_search.model.engine.surface import knowledge_of
from sketch_search.model.engine.tokens import Floats, quantize
from sketch_search.model.errors import ModelError
from sketch_search.model.images import MAX_THINGS, SPECK
from sketch_search.model.images.preprocess import fit_photo
from sketch_search.model.limits import at_pauses
from sketch_search.model.search import gallery_of, search_things
from sketch_search.model.search.drawings import things_of_text
from sketch_search.training.corpus import Picture
from sketch_search.training.evaluation.scoring import encode_pictures
from sketch_search.training.papers.parting import PartingNetwork
from tests.networks import parting_by_distance
from tests.pictures import SHAPES, costly_drawings, photo

WIDTH = 8
PATCHES = np.random.default_rng(0).normal(size=(2, 144, WIDTH)).astype(np.float32)


def ink(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    paper = Image.new("L", (SIDE, SIDE))
    for box in boxes:
        ImageDraw.Draw(paper).rectangle(box, outline=255, width=2)
    return np.asarray(paper)


LEFT, RIGHT = (3, 60, 43, 110), (125, 60, 165, 110)


def divide(*given: Any) -> Any:
    return parting_by_distance(WIDTH).divide(*given)[0]


def at(labels: np.ndarray, box: tuple[int, int, int, int]) -> set[int]:
    left, top, right, bottom = box
    return set(np.unique(labels[top : bottom + 1, left : right + 1])) - {-1}


def test_a_drawing_is_divided_into_groups_of_ink_that_belong_together() -> None:
    labels = divide(PATCHES, ink(LEFT, RIGHT))
    assert at(labels, LEFT) != at(labels, RIGHT)
    assert len(at(labels, LEFT)) == len(at(labels, RIGHT)) == 1
    assert (labels >= 0).sum() == (ink(LEFT, RIGHT) > 0).sum()
    assert at(divide(PATCHES, ink(LEFT)), LEFT) == {0}


def test_a_drawing_that_is_surely_of_something_is_more_rarely_divided() -> None:
    near = ink(LEFT, (121, 60, 161, 110))
    assert [divide(PATCHES, near, None, None, sure).max() for sure in (0, 0.5, 1)] == [1, 1, 0]


def test_several_things_may_be_one_and_one_thing_that_is_hardly_joined_may_be_two() -> None:
    parting = parting_by_distance(WIDTH)
    for right, things, others in (
        ((118, 60, 158, 110), 2, 1),
        ((136, 60, 166, 110), 2, 1),
        ((106, 60, 146, 110), 1, 2),
    ):
        near = ink(LEFT, right)
        labels, _, other = parting.divide(PATCHES, near)
        assert other is not None
        probability, second = other
        assert (labels.max() + 1, second.max() + 1) == (things, others)
        assert ((second >= 0) == (near > 0)).all()
        assert 0 < probability < 0.5
        strokes = np.where(near > 0, (np.arange(SIDE) > SIDE // 2).astype(int), -1)
        assert parting.divide(PATCHES, near, strokes, np.arange(2))[2] is None
    # What is surely of something is less probably two.
    sure = parting.divide(PATCHES, near, None, None, 0.1)[2]
    assert sure is not None
    assert sure[0] < probability
    assert parting.divide(PATCHES, ink(LEFT))[2] is None


def test_a_line_from_side_to_side_is_of_no_thing_and_joins_none() -> None:
    boxes = (LEFT, (70, 60, 110, 110), RIGHT)

    def on_line(*boxes: tuple[int, int, int, int], ends: Sequence[tuple[int, int]] = ((1, 112), (166, 109))) -> Any:
        paper = Image.fromarray(ink(*boxes))
        ImageDraw.Draw(paper).line(ends, fill=255, width=2)
        return np.asarray(paper)

    def of(labels: Any) -> list[set[int]]:
        return [at(labels, box) - {SPECK} for box in boxes]

    drawn = on_line(*boxes)
    apart = divide(PATCHES, drawn)
    assert of(apart) == [{0}, {1}, {2}]
    assert SPECK in apart[108:114, 50:65]
    strokes = np.where(drawn > 0, len(boxes), -1)
    for number, box in enumerate(boxes):
        strokes[ink(box) > 0] = number
    by_strokes = divide(PATCHES, drawn, strokes)
    assert of(by_strokes) == [{0}, {1}, {2}]
    assert set(by_strokes[strokes == len(boxes)]) == {SPECK}
    # As a person said, it is a thing.
    assert (divide(PATCHES, drawn, strokes, np.array([-1, -1, -1, 5])) != SPECK).all()
    assert (divide(PATCHES, on_line(LEFT)) == SPECK).any(), "one thing stands on it, too"
    # What is nearly as long keeps it, and so does what a line joins only in part, or steeply.
    for one in (
        on_line((20, 60, 150, 108)),
        on_line(*boxes, ends=((1, 112), (100, 110))),
        on_line(*boxes, ends=((1, 140), (166, 80))),
    ):
        assert set(np.unique(divide(PATCHES, one))) == {-1, 0}


def test_a_stroke_is_of_one_thing_and_what_a_person_said_is_law() -> None:
    both = ink(LEFT, RIGHT)
    strokes = np.full((SIDE, SIDE), -1)
    strokes[both > 0] = 0
    assert set(np.unique(divide(PATCHES, both, strokes))) == {-1, 0}
    strokes[:, SIDE // 2 :][both[:, SIDE // 2 :] > 0] = 1
    assert set(np.unique(divide(PATCHES, both, strokes))) == {-1, 0, 1}
    things, halves, _ = parting_by_distance(WIDTH).divide(PATCHES, both, strokes, np.array([4, 4]))
    assert set(np.unique(things)) == {-1, 0}
    assert at(halves, LEFT) != at(halves, RIGHT), "what was joined can be split again"
    near = ink(LEFT, (60, 60, 80, 110))
    strokes = np.where(near > 0, (np.arange(SIDE) > 55).astype(int), -1)
    assert set(np.unique(divide(PATCHES, near, strokes))) == {-1, 0}
    told = divide(PATCHES, near, strokes, np.array([2, 7]))
    assert at(told, LEFT) != at(told, (60, 60, 80, 110))


def test_a_parting_that_was_trained_on_other_features_is_left_out() -> None:
    for width, fits in ((TWO_SIDED.encoder_width, True), (TWO_SIDED.encoder_width + 1, False)):
        arrays = {f"parting.{name}": array for name, array in parting_by_distance(width).arrays().items()}
        assert (knowledge_of(TWO_SIDED, arrays)[3] is not None) == fits


def test_strokes_that_follow_each_other_are_more_probably_of_one_thing() -> None:
    left, right = ([(x, y, x + 10, y + 5) for y in range(40, 130, 9)] for x in (20, 118))
    for order, things in (([*left, *right], 2), ([box for pair in zip(left, right, strict=True) for box in pair], 1)):
        strokes = np.full((SIDE, SIDE), -1)
        for number, box in enumerate(order):
            strokes[ink(box) > 0] = number
        assert divide(PATCHES, ink(*order), strokes).max() + 1 == things
        assert divide(PATCHES, ink(*order)).max() + 1 == 1


def test_a_speck_far_from_all_else_is_of_no_thing() -> None:
    speck = ink(LEFT, (150, 5, 153, 8))
    labels = divide(PATCHES, speck)
    assert set(np.unique(labels)) == {SPECK, -1, 0}
    assert at(labels, (150, 5, 153, 8)) == {SPECK}


@pytest.mark.parametrize(
    ("boxes", "things"),
    [
        # Three cows alike, one with an eye, and what else is in the thing; but not two, nor three waves or tufts.
        ([(5, 5, 35, 30), (60, 60, 90, 85), (65, 65, 67, 67), (120, 100, 160, 135), (110, 10, 114, 14)], 3),
        ([(5, 5, 35, 30), (60, 60, 90, 85)], 1),
        ([(5, 5, 35, 9), (60, 60, 90, 64), (120, 100, 150, 104)], 1),
        ([(5, 5, 9, 9), (60, 60, 64, 64), (120, 100, 124, 104)], 1),
        ([(1 + 42 * (n % 4), 1 + 50 * (n // 4), 31 + 42 * (n % 4), 31 + 50 * (n // 4)) for n in range(9)], 1),
    ],
)
def test_what_is_drawn_three_times_is_three_things(boxes: list[tuple[int, int, int, int]], things: int) -> None:
    pieces = Pieces.of(ink(*boxes))
    numbers = part_repeated(pieces, np.zeros(len(pieces), np.int64))
    assert set(numbers) == set(range(things))
    assert (part_repeated(pieces, np.full(len(pieces), SPECK)) == SPECK).all()


def test_pieces_are_joined_by_average_linkage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parting, "LEAST", 0.0)
    monkeypatch.setattr(parting, "MAX_THINGS", MOST_PIECES)
    paper = np.zeros((SIDE, SIDE), np.uint8)
    paper[::14, ::14] = 255
    pieces = Pieces.of(paper)
    for seed in range(9):
        places = np.random.default_rng(seed).random((len(pieces), 2))
        chance = np.exp(-3 * np.linalg.norm(places[:, None] - places, axis=2))
        np.fill_diagonal(chance, 1)
        things, _, margin = join_pieces(chance, pieces, None, CUT)
        expected = fcluster(linkage(squareform(1 - chance), "average"), 1 - CUT, "distance")
        assert 3 < len(set(things)) < len(pieces) / 3
        assert len({*zip(things, expected, strict=True)}) == len(set(things)) == len(set(expected))
        joined = 1 - linkage(squareform(1 - chance), "average")[:, 2]
        assert margin == pytest.approx(min(joined - CUT, key=abs))


def test_many_specks_are_pieces_of_coarser_cells_and_fewer_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = np.zeros((2, SIDE, SIDE), np.uint8)
    few[::6, ::6] = many[::3, ::3] = 255
    each = np.where(many > 0, np.arange(SIDE * SIDE).reshape(SIDE, SIDE) % 2000, -1)
    for strokes, told in ((None, None), (each, None), (each, np.arange(2000) % 1000)):
        pieces = Pieces.of(many, strokes, told)
        assert len(pieces) <= MOST_PIECES
        assert ((pieces.labels >= 0) == (many > 0)).all()
        if told is not None:
            assert (told[pieces.strokes[pieces.labels[many > 0]]] == told[each[many > 0]]).all()
    of_few = Pieces.of(few)
    monkeypatch.setattr(parting, "MOST_PIECES", SIDE**2)
    assert (len(of_few), len(Pieces.of(many))) == (28**2, 56**2)
    assert (Pieces.of(few).labels == of_few.labels).all()


def test_of_more_things_than_a_drawing_may_have_those_with_most_ink_stay_as_told() -> None:
    boxes = [(2 + 40 * (n % 4), 5 + 55 * (n // 4), 25 + 40 * (n % 4), 15 + 3 * n + 55 * (n // 4)) for n in range(12)]
    strokes = np.full((SIDE, SIDE), -1)
    for number, box in enumerate(boxes):
        strokes[ink(box) > 0] = number
    labels = divide(PATCHES, ink(*boxes), strokes, np.arange(12))
    assert labels.max() + 1 == MAX_THINGS
    assert len({*chain.from_iterable(at(labels, box) for box in boxes[-MAX_THINGS:])}) == MAX_THINGS


@pytest.mark.parametrize("name", costly_drawings())
def test_a_costly_drawing_is_divided_in_many_short_steps_and_can_be_given_up(default: Matcher, name: str) -> None:
    """CPU seconds: a step is what a search of somebody else waits for."""
    picture, strokes = costly_drawings()[name]
    job = replace(Job.preparing(default.preprocessing, "sketch", strokes=len(strokes)), drawing=True)
    drawing = decode_inline(picture + strokes, job).drawing
    assert drawing is not None
    pauses = [time.process_time()]

    def note() -> None:
        pauses.append(time.process_time())
        if len(pauses) == given_up:
            raise InterruptedError

    given_up, before = 0, at_pauses.set(note)
    try:
        assert len(default.divide(drawing).things) <= MAX_THINGS
        note()
        assert max(np.diff(pauses)) < 1
        assert pauses[-1] - pauses[0] < 3
        given_up, pauses = len(pauses) // 2, pauses[:1]
        with pytest.raises(InterruptedError):
            default.divide(drawing)
    finally:
        at_pauses.reset(before)


def test_numpy_computes_what_the_trained_network_computes() -> None:
    torch.manual_seed(0)
    pieces = Pieces.of(ink(LEFT, RIGHT))
    features = pieces.features(PATCHES)
    network = PartingNetwork(features.shape[1]).eval()
    with torch.inference_mode():
        tensors = (torch.from_numpy(one.astype(np.float32))[None] for one in (features, pieces.centres, pieces.gaps))
        expected = torch.sigmoid(network(*tensors, torch.zeros(1, len(pieces), dtype=torch.bool)))[0].numpy()
    parting = Parting.of({name: tensor.numpy() for name, tensor in network.state_dict().items()})
    assert parting.probabilities(features, pieces) == pytest.approx(expected, abs=1e-5)


# A woman in uniform, with a tie, from the waist up: her head is at the top, and she fills the picture.
PORTRAIT = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
PERSON, TIE = KINDS.index("person"), KINDS.index("tie")


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector()


def named(boxes: NDArray[np.uint8], kind: int) -> NDArray[np.int64]:
    return boxes[boxes[:, 0] == kind].astype(np.int64)


def test_a_person_and_a_tie_are_found_where_they_are(detector: Detector) -> None:
    boxes = detector.detect(fit_photo(Image.open(PORTRAIT), SIZE))
    assert boxes.shape == (BOXES, 6)
    assert boxes[:2, 0].tolist() == [PERSON, TIE]
    assert (boxes[:2, 1] > 180).all()
    corners = boxes[:2, 2:].astype(np.int64)
    assert np.abs(corners - [[4, 17, 255, 249], [110, 173, 147, 226]]).max() <= 12
    used = boxes[boxes[:, 0] != NO_KIND].astype(np.int64)
    assert (np.diff(used[:, 1]) <= 0).all()
    assert (used[:, 4:] > used[:, 2:4]).all()
    assert np.array_equal(boxes[len(used) :], no_boxes(1)[0][len(used) :])


def test_corners_are_shares_of_the_picture_whatever_its_shape(detector: Detector) -> None:
    portrait = Image.open(PORTRAIT)
    paper = Image.new("RGB", (2 * portrait.width, portrait.height), "white")
    paper.paste(portrait, (portrait.width, 0))
    (left,) = named(detector.detect(fit_photo(portrait, SIZE)), TIE)[:1]
    (right,) = named(detector.detect(fit_photo(paper, SIZE)), TIE)[:1]
    assert right[[2, 4]] == pytest.approx(128 + left[[2, 4]] / 2, abs=4)
    assert right[[3, 5]] == pytest.approx(left[[3, 5]], abs=8)


@pytest.mark.parametrize("size", [(1, 1), (20_000, 200), (3, 5_000)])
def test_a_picture_of_any_size_and_mode_has_boxes_or_none(detector: Detector, size: tuple[int, int]) -> None:
    assert np.array_equal(detector.detect(fit_photo(Image.new("CMYK", size), SIZE)), no_boxes(1)[0])


def test_another_file_is_refused_by_its_hash(tmp_path: Path) -> None:
    changed = bytearray(DETECTOR.read_bytes())
    changed[len(changed) // 2] ^= 1
    other = tmp_path / "detector.onnx"
    other.write_bytes(changed)
    with pytest.raises(ModelError, match=r"is not the detector of this version .* install sketch-search again"):
        Detector(other)
    with pytest.raises(ModelError, match=r"missing\.onnx cannot be read .* install sketch-search again"):
        Detector(tmp_path / "missing.onnx")


def test_boxes_are_kept_if_asked_and_spare_comparisons(detector: Detector, default: Matcher, tmp_path: Path) -> None:
    photo(SHAPES[0], 240, 1).save(tmp_path / "made.png")
    photos = [Picture(PORTRAIT, "a", "a"), Picture(tmp_path / "made.png", "b", "b")]
    encoded = encode_pictures(default, photos, "photo", boxes=True)
    assert encoded.boxes is not None
    assert np.array_equal(encoded.boxes[0], detector.detect(fit_photo(Image.open(PORTRAIT), SIZE)))
    assert np.array_equal(encoded.features, encode_pictures(default, photos, "photo").features)
    gallery = gallery_of(encoded, default)
    assert np.array_equal(gallery._photos.photo_boxes(np.argsort(gallery.ids)), encoded.boxes)
    without = gallery_of(replace(encoded, boxes=None), default)
    assert (gallery.boxes_kept, without.boxes_kept) == (True, False)
    assert np.array_equal(without._photos.photo_boxes(np.arange(2)), no_boxes(2))
    for text, of, compared in (("tie, rainbow", gallery, 300), ("tie, rainbow", without, 2000), ("sky", gallery, 2000)):
        assert search_things(of, default, things_of_text(default, text) * 2, 1).plan.count == compared


# [Ret] of `photo_vectors()`, float16; `python -m tests.model.engine.test_parting FILE` writes it anew.
DIGEST = Path(__file__).with_name("ret_of_generated_photos.npy")
# The last bits of floats decide some roundings: with AVX2 alone cosines are 0.9988 at least, by saturated sums 0.945.
SAME_VECTOR = 0.998
HIDE_AVX512 = Path(__file__).parents[2] / "avx2_alone.c"
# Rounded to int8, these are multiplied as whole numbers.
PRODUCTS = ("DynamicQuantizeMatMul", "MatMulIntegerToFloat")


@cache
def photo_vectors() -> Floats:
    matcher = load()
    pictures = [photo(SHAPES[number % len(SHAPES)], 240, number) for number in range(24)]
    return np.stack([matcher.encode(matcher.prepare(one, "photo")[None], "photo").ret[0] for one in pictures])


def weights_in_int8(monkeypatch: pytest.MonkeyPatch, graph: str) -> dict[str, NDArray[np.int8]]:
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
def test_no_two_products_exceed_the_16_bits_of_avx2(monkeypatch: pytest.MonkeyPatch, graph: str) -> None:
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


def test_photos_have_the_same_vectors_on_this_processor() -> None:
    expected = np.load(DIGEST).astype(np.float32)
    assert (unit(photo_vectors()) * unit(expected)).sum(axis=1).min() > SAME_VECTOR


def test_photos_have_the_same_vectors_on_a_processor_with_avx2_alone(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    features = Path("/proc/cpuinfo").read_text("utf-8").split() if sys.platform == "linux" else []
    if compiler is None or "cpuid_fault" not in features or "avx512f" not in features or "LD_PRELOAD" in os.environ:
        pytest.skip("needs a C compiler and a processor with AVX512 that is not hidden and whose cpuid can be trapped")
    library, vectors = tmp_path / "avx2.so", tmp_path / "vectors.npy"
    subprocess.run([compiler, "-shared", "-fPIC", HIDE_AVX512, "-o", library], check=True, timeout=60)
    program = [sys.executable, "-m", "tests.model.engine.test_parting", str(vectors)]
    subprocess.run(program, env={**os.environ, "LD_PRELOAD": str(library)}, check=True, timeout=300)
    here, there, expected = (
        unit(rows.astype(np.float32)) for rows in (photo_vectors(), np.load(vectors), np.load(DIGEST))
    )
    assert (there * expected).sum(axis=1).min() > SAME_VECTOR
    # Other instructions computed them: the last bits differ.
    assert not np.array_equal(there, here)


if __name__ == "__main__":
    np.save(sys.argv[1], photo_vectors())
