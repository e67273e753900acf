"""A drawing is divided into its things by the ink that belongs together, and as a person said."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from sketch_search.model.engine import Parting
from sketch_search.model.engine.config import TWO_SIDED
from sketch_search.model.engine.knowledge import knowledge_of
from sketch_search.model.engine.parting import SIDE, Pieces, join_pieces
from sketch_search.model.images import MAX_THINGS, SPECK
from sketch_search.model.training.papers.parting import PartingNetwork
from tests.networks import parting_by_distance

WIDTH = 8
PATCHES = np.random.default_rng(0).normal(size=(2, 144, WIDTH)).astype(np.float32)


def ink(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """Outlines of rectangles, as darkness."""
    paper = Image.new("L", (SIDE, SIDE))
    for box in boxes:
        ImageDraw.Draw(paper).rectangle(box, outline=255, width=2)
    return np.asarray(paper)


LEFT, RIGHT = (3, 60, 43, 110), (125, 60, 165, 110)


def divide(*given: Any) -> Any:
    """The number of each pixel's thing."""
    return parting_by_distance(WIDTH).divide(*given)[0]


def at(labels: np.ndarray, box: tuple[int, int, int, int]) -> set[int]:
    left, top, right, bottom = box
    return set(np.unique(labels[top : bottom + 1, left : right + 1])) - {-1}


def test_pieces_are_what_is_connected_within_a_cell_with_gaps_to_other_ink() -> None:
    pieces = Pieces.of(ink(LEFT))
    assert (pieces.labels >= 0).sum() == (ink(LEFT) > 0).sum()
    assert pieces.pixels.sum() == (ink(LEFT) > 0).sum()
    assert not pieces.gaps.any(), "all of an outline is connected"
    gaps = Pieces.of(ink(LEFT, RIGHT)).gaps
    assert set(np.unique(gaps > 0.4)) == {False, True}
    assert set(np.unique(gaps[gaps < 0.4])) == {0}
    assert ((pieces.centres > 0) & (pieces.centres < 1)).all()
    dots = np.zeros((SIDE, SIDE), np.uint8)
    assert len(Pieces.of(dots)) == 0
    dots[5, [5, 6, 80]] = 255
    assert Pieces.of(dots).pixels.tolist() == [2, 1]


def test_a_drawing_is_divided_into_groups_of_ink_that_belong_together() -> None:
    labels = divide(PATCHES, ink(LEFT, RIGHT))
    assert at(labels, LEFT) != at(labels, RIGHT)
    assert len(at(labels, LEFT)) == len(at(labels, RIGHT)) == 1
    assert (labels >= 0).sum() == (ink(LEFT, RIGHT) > 0).sum()
    assert at(divide(PATCHES, ink(LEFT)), LEFT) == {0}


def test_a_drawing_that_is_surely_of_something_is_more_rarely_divided() -> None:
    near = ink(LEFT, (121, 60, 161, 110))
    assert [divide(PATCHES, near, None, None, sure).max() for sure in (0, 0.5, 1)] == [1, 1, 0]


def test_a_stroke_is_of_one_thing_and_what_a_person_said_is_law() -> None:
    both = ink(LEFT, RIGHT)
    strokes = np.full((SIDE, SIDE), -1)
    strokes[both > 0] = 0
    assert set(np.unique(divide(PATCHES, both, strokes))) == {-1, 0}
    strokes[:, SIDE // 2 :][both[:, SIDE // 2 :] > 0] = 1
    assert set(np.unique(divide(PATCHES, both, strokes))) == {-1, 0, 1}
    things, halves = parting_by_distance(WIDTH).divide(PATCHES, both, strokes, np.array([4, 4]))
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


def test_a_speck_far_from_all_else_is_of_no_thing() -> None:
    speck = ink(LEFT, (150, 5, 153, 8))
    labels = divide(PATCHES, speck)
    assert set(np.unique(labels)) == {SPECK, -1, 0}
    assert at(labels, (150, 5, 153, 8)) == {SPECK}


def test_there_are_never_more_things_than_a_drawing_may_have() -> None:
    pieces = Pieces.of(
        ink(*[(5 + 40 * (n % 4), 5 + 40 * (n // 4), 35 + 40 * (n % 4), 35 + 40 * (n // 4)) for n in range(12)])
    )
    things, _ = join_pieces(np.eye(len(pieces), dtype=np.float32), pieces, least=0.0)
    assert things.max() == MAX_THINGS - 1


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
