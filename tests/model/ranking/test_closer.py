"""What answers to "Which is closer?" do to scores, and what is asked next, against both written out."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.ranking import answered, next_question
from model.ranking.closer import CERTAINTY, WIDTH


def cosines(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def entropy(chance: float) -> float:
    return -sum(part * math.log(part) for part in (chance, 1 - chance) if part > 0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), photos=st.integers(0, 6), answers=st.integers(0, 4))
def test_scores_are_what_bayes_makes_of_the_answers(seed: int, photos: int, answers: int) -> None:
    scores = -cosines(seed, photos).abs()
    closer, farther = cosines(seed + 1, photos, answers), cosines(seed + 2, photos, answers)
    weights = []
    for photo in range(photos):
        weight = math.exp(float(scores[photo]) / WIDTH)
        for answer in range(answers):
            weight *= sigmoid(CERTAINTY * float(closer[photo, answer] - farther[photo, answer]))
        weights.append(weight)
    found = answered(scores, closer, farther)
    torch.testing.assert_close((found.double() / WIDTH).exp(), torch.tensor(weights).double(), rtol=1e-3, atol=0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), photos=st.integers(1, 6), fresh=st.integers(2, 5))
def test_the_question_is_that_whose_answer_tells_most(seed: int, photos: int, fresh: int) -> None:
    scores, likeness = -0.1 * cosines(seed, photos).abs(), cosines(seed + 1, photos, fresh)
    weights = [math.exp(float(score) / WIDTH) for score in scores]
    told = []
    for other in range(1, fresh):
        chances = [sigmoid(CERTAINTY * float(row[0] - row[other])) for row in likeness]
        mean = sum(w * chance for w, chance in zip(weights, chances, strict=True)) / sum(weights)
        left = sum(w * entropy(chance) for w, chance in zip(weights, chances, strict=True)) / sum(weights)
        told.append(entropy(mean) - left)
    question = next_question(scores, likeness)
    assert question is not None
    first, second = question
    assert first == 0
    assert told[second - 1] == pytest.approx(max(told), abs=1e-5)


@pytest.mark.parametrize("fresh", [0, 1])
def test_nothing_is_asked_about_fewer_than_two_photos(fresh: int) -> None:
    assert next_question(torch.zeros(3), torch.zeros(3, fresh)) is None
