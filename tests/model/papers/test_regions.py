"""These tests cover what a checkpoint learns of the regions of photos that show a thing."""

from dataclasses import replace

import numpy as np

from sketch_search.model.engine import Floats, Projection, Vocabulary, unit
from sketch_search.model.matcher import Matcher
from sketch_search.model.papers.regions import with_regions
from sketch_search.model.things import Thing
from tests.model.network.test_two_sided import two_sided
from tests.networks import matcher_of, vocabulary

KEPT = 8


def guessing(width: int, summary: int) -> Vocabulary:
    """Two words and two things, the first of which every sketch is guessed to show."""
    nothing = np.zeros((2, width), np.float32)
    directions = np.zeros((2, summary), np.float32)
    biases = np.array([50, -50], np.float32)
    return vocabulary([0, 1], directions=nothing, sketch_directions=directions, sketch_biases=biases)


def test_regions_of_a_thing_lie_where_its_photos_are_most_like_it_and_not_in_their_background() -> None:
    chance, width = np.random.default_rng(0), 32

    def directions(*shape: int, mean: Floats | float = 0.0) -> Floats:
        return unit(chance.normal(size=(*shape, width)).astype(np.float32) + mean)

    # In each photo ten regions, anywhere, show the first thing. They are not quite like whole photos of it.
    photos, (place, here) = directions(5, 64), directions(2, mean=2.0)
    for photo in photos:
        photo[chance.permutation(64)[:10]] = directions(10, mean=10 * here)
    projection = Projection(np.eye(KEPT, width, dtype=np.float32))
    known = replace(guessing(width, 4), places=np.stack([place, place]))
    learned = with_regions(known, projection, photos, {0: [0, 1, 2, 3, 4]})
    assert learned.region_places[0] @ projection(here) > 0.98
    assert not learned.region_places[1].any()
    kept = Vocabulary.of(learned.arrays(), learned.drawn.tolist())
    assert np.array_equal(kept.region_places, learned.region_places)


def test_a_thing_is_looked_for_where_regions_that_show_its_guess_lie() -> None:
    network = two_sided()
    projection = Projection(np.eye(KEPT, network.config.width, dtype=np.float32))
    there = np.eye(2, KEPT, dtype=np.float32)
    pixels = np.random.default_rng(1).normal(size=(1, 3, *[network.config.image_size] * 2)).astype(np.float32)

    def matcher(known: Vocabulary | None) -> Matcher:
        words = () if known is None else (("cat",), ("dog",))
        return matcher_of(network.projection_replaced(projection).vocabulary_replaced(known, words))

    tokens = matcher(None).encode(pixels, "sketch", 1)
    known = replace(guessing(network.config.width, tokens.guessed_from.shape[1]), region_places=there)
    alone, led = (matcher(one).thing_directions([Thing(tokens)])[0] for one in (None, known))
    assert led @ there[0] > max(0.8, alone @ there[0])
    # Without them, whole photos of the guessed things lead.
    whole = np.zeros((2, network.config.width), np.float32)
    whole[0, 2] = 1
    by_whole = matcher(replace(known, region_places=np.empty((0, 0), np.float32), places=whole))
    assert by_whole.thing_directions([Thing(tokens)])[0, 2] > 0.9
