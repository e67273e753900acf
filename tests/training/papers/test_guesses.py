from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sketch_search.model.errors import ModelError
from sketch_search.model.images import Preprocessing
from sketch_search.training.evaluation.scoring import encode_pictures
from sketch_search.training.papers.guesses import Drawn, Guessed, cut_parts, expecting, with_guesses
from sketch_search.training.papers.vocabulary import with_vocabulary
from sketch_search.training.people import draw_person
from tests.networks import matcher_of, tiny_network, write_class_folders
from tests.pictures import SHAPES


def test_things_cut_from_scenes_count_less_than_whole_sketches() -> None:
    shares = Drawn(("cat", "cat", "dog"), ("pen", "part", "icon"), torch.zeros(3, 2)).shares()
    assert shares.tolist() == [1, 0.5, 1]


def test_what_usual_photos_show_more_often_is_guessed_more_often(tmp_path: Path) -> None:
    corpus = write_class_folders(tmp_path, seeds=range(6), shapes=SHAPES[:3])
    before = with_vocabulary(tiny_network(), corpus.photos, torch.zeros(len(corpus.photos), 0), (), corpus.sketches)
    assert before.vocabulary is not None
    usual = [photo for photo in corpus.photos if photo.label == SHAPES[0]]
    after = expecting(before, matcher_of(before, variants=1), usual).vocabulary
    assert after is not None
    raised = after.sketch_biases - before.vocabulary.sketch_biases
    words = [before.config.words[number][0] for number in before.config.drawn]
    assert words[int(raised.argmax())] == SHAPES[0]
    assert expecting(before, matcher_of(before, variants=1), ()) is before


def test_kinds_of_line_drawings_alone_are_guessed_too_if_they_have_a_word(tmp_path: Path) -> None:
    corpus = write_class_folders(tmp_path, seeds=range(6), shapes=SHAPES[:3])
    lines = [replace(sketch, source="drawings") for sketch in corpus.sketches if sketch.label == SHAPES[0]]
    others = [sketch for sketch in corpus.sketches if sketch.label != SHAPES[0]]
    before = with_vocabulary(tiny_network(), corpus.photos, torch.zeros(len(corpus.photos), 0), (), others)
    nameless = [replace(sketch, label="unheard of") for sketch in lines]
    network = with_guesses(before, matcher_of(before, variants=1), [*others, *lines, *nameless], scenes=0)
    first, vocabulary = before.vocabulary, network.vocabulary
    assert first is not None
    assert vocabulary is not None
    words = [network.config.words[number][0] for number in network.config.drawn]
    assert words == [*sorted(SHAPES[1:3]), SHAPES[0]]
    # Nobody knows where photos of the last one lie.
    np.testing.assert_array_equal(vocabulary.places, np.pad(first.places, ((0, 1), (0, 0))))
    shows = vocabulary.things(encode_pictures(matcher_of(network, variants=1), corpus.sketches, "sketch"))
    assert [words[number] for number in shows.argmax(axis=1)] == [sketch.label for sketch in corpus.sketches]
    with pytest.raises(ModelError, match="other things"):
        with_guesses(before, matcher_of(before, variants=1), lines, scenes=0)
    # A thing that had no word when its guess was learned may have one by now.
    unnamed = replace(first, drawn=np.array([-1, *before.config.drawn[1:]]))
    nameless_first = before.vocabulary_replaced(unnamed, before.config.words)
    again = with_guesses(nameless_first, matcher_of(before, variants=1), [*others, *lines], scenes=0)
    assert again.config.drawn == network.config.drawn


def test_parts_of_scenes_are_what_is_seen_of_each_sketch_and_all_kinds_occur(tmp_path: Path) -> None:
    corpus = write_class_folders(tmp_path, seeds=range(3), shapes=SHAPES[:3])
    parts = list(cut_parts(corpus.sketches, 40, seed=0))
    assert {kind for kind, _ in parts} == {0, 1, 2}
    inked = [np.asarray(image.convert("L")) < 128 for _, image in parts]
    assert all(ink.any() for ink in inked)
    repeated = list(cut_parts(corpus.sketches, 40, seed=0))
    assert all(one[1] == other[1] for one, other in zip(parts, repeated, strict=True))


def test_people_are_drawn_in_many_ways_each_of_which_is_a_drawing() -> None:
    people = [draw_person(np.random.default_rng(number)) for number in range(40)]
    assert len({image.tobytes() for image in people}) == 40
    assert draw_person(np.random.default_rng(3)) == people[3]
    shapes = []
    for image in people:
        ink = np.asarray(image) < 128
        rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
        shapes.append((np.ptp(rows) + 1, np.ptp(columns) + 1))
        assert max(shapes[-1]) > 300
        assert ink.mean() < 0.3
        Preprocessing().drawing(image.convert("RGB"))
    # Most stand, some lie or reach.
    assert 0.1 < np.mean([high < wide for high, wide in shapes]) < 0.5


def test_figures_of_guesses_are_means_over_kinds_of_which_each_style_counts_alike() -> None:
    guessed = Guessed(
        np.array(["cat", "cat", "cat", "dog"]),
        np.array(["pen", "pen", "icon", "pen"]),
        np.array([True, False, True, False]),
        np.array([True, True, True, False]),
        np.array([0.95, 0.15, 0.95, 0.55]),
    )
    figures = guessed.figures(np.ones(4, bool))
    # Of cats, pens are right for 1/2 and icons for 1; no dog is right.
    assert figures["first"] == pytest.approx(0.375)
    assert figures["of three"] == pytest.approx(0.5)
    # By tenths of probability: 3/8 of the weight are 0.05 too low, 1/8 0.15 too high, and 1/2 0.55 too high.
    assert figures["calibration error"] == pytest.approx(3 / 8 * 0.05 + 1 / 8 * 0.15 + 1 / 2 * 0.55)
    rows = guessed.rows()
    assert rows["style icon"]["first"] == 1
    assert rows["dog, pen"]["first"] == 0
    assert list(rows)[-2:] == ["worst: dog", "worst: cat"]
