"""Composites: where they put things, what they count, and that a network without sense fails them."""

from __future__ import annotations

import collections
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import model
from model.datasets.corpus import Corpus, Picture
from model.errors import ModelError
from model.evaluation.composites import (
    CHANCE,
    choose_composites,
    compose,
    measure_composites,
    pointed_at,
    quarters_of,
)
from model.explanation.pair import Observed, SelfAttention, compare
from model.matcher import Matcher
from model.network.tokens import Tokens
from tests.learning import write_class_folders
from tests.networks import tiny_network


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_class_folders(tmp_path_factory.mktemp("composites"), seeds=range(3))


@pytest.fixture(scope="module")
def default() -> Matcher:
    return model.load(dtype=torch.float32)


def test_the_things_photo_is_in_its_quarter_and_the_others_are_of_three_other_classes(corpus: Corpus) -> None:
    composites = choose_composites(corpus, 20)
    for composite in composites:
        labels = [photo.label for photo in composite.photos]
        assert labels[composite.quarter] == composite.sketch.label
        assert len(set(labels)) == 4
    assert set(collections.Counter(c.quarter for c in composites).values()) == {5}
    assert {c.sketch.label for c in composites} == set(corpus.labels)


def test_the_choice_depends_on_the_seed_alone(corpus: Corpus) -> None:
    assert choose_composites(corpus, 10) == choose_composites(corpus, 10)
    assert choose_composites(corpus, 10) != choose_composites(corpus, 10, seed=1)


def test_too_few_classes_are_refused(corpus: Corpus) -> None:
    with pytest.raises(ModelError, match="photos of 4 classes"):
        choose_composites(corpus.of(corpus.labels[:3]))
    with pytest.raises(ModelError, match="sketches of 0"):
        choose_composites(Corpus((Picture(Path("x.png"), "no such thing", ""),), corpus.photos))


def test_each_photo_fills_its_quarter() -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9)]
    canvas = np.asarray(compose([Image.new("RGB", (50 + n, 70), c) for n, c in enumerate(colours)], 64))
    assert canvas.shape == (64, 64, 3)
    corners = (canvas[:32, :32], canvas[:32, 32:], canvas[32:, :32], canvas[32:, 32:])
    for corner, colour in zip(corners, colours, strict=True):
        assert (corner == colour).all()


def test_cells_belong_to_the_quarter_of_their_centre() -> None:
    assert quarters_of(torch.arange(16), 4).reshape(4, 4).tolist() == [[0, 0, 1, 1]] * 2 + [[2, 2, 3, 3]] * 2
    assert quarters_of(torch.tensor([6, 7, 97, 98, 104, 105]), 14).tolist() == [0, 1, 1, 2, 2, 3]


def test_best_matches_are_counted_where_they_lie() -> None:
    network = tiny_network(cross_attention=False)
    patches = torch.eye(network.config.width)[:5]
    cells = torch.tensor([[0, 1, 3, 10, 15]])  # quarters 0, 0, 1, 3, 3
    nothing = SelfAttention(torch.zeros(1, 1, 4, 4), ())
    ret = torch.ones(1, network.config.width)
    photo = Tokens(torch.cat([ret, patches])[None], cells)
    sketch = Tokens(torch.cat([ret, patches[[4, 3, 0, 2, 3]]])[None], torch.arange(5)[None])
    explanation = compare(network, Observed(sketch, nothing), Observed(photo, nothing))
    assert pointed_at(explanation).tolist() == [1, 1, 0, 3]


def test_the_default_network_points_at_the_thing_drawn_and_a_random_one_does_not(
    corpus: Corpus, default: Matcher
) -> None:
    told: list[int] = []
    found = measure_composites(default, corpus, 10, report=told.append)
    assert told == list(range(1, 11))
    assert (found.composites, found.classes) == (10, 9)
    assert found.right.value > 0.5
    assert found.right.low > 1.2 * CHANCE
    assert found.right.low <= found.right.value <= found.right.high
    senseless = measure_composites(Matcher(tiny_network(), "0" * 64), corpus, 80)
    assert senseless.right.low < CHANCE < senseless.right.high
    assert senseless.right.value < 0.4


def test_sketches_of_other_things_do_not_point_at_the_thing(corpus: Corpus, default: Matcher) -> None:
    # These are the canvases from above, where every sketch claims to be of the class after its own.
    following = dict(zip(corpus.labels, (*corpus.labels[1:], corpus.labels[0]), strict=True))
    mislabelled = tuple(Picture(s.path, following[s.label], s.source) for s in corpus.sketches)
    found = measure_composites(default, Corpus(mislabelled, corpus.photos), 8)
    assert found.right.value < 0.4
