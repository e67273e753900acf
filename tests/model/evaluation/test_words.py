"""Searches by the words of the classes, beside those by sketches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import model
from model.commands.command_line import main
from model.evaluation.scoring import WORD, word_matrices
from model.ranking import led_by_word, named
from model.terminal import BAD_INPUT
from model.words import UnknownWord
from tests.networks import tiny_checkpoint
from tests.pictures import SHAPES, drawing, photo

WORDS = (("star",), ("house",), ("wine bottle",))
LABELS = ("house", "wine_bottle", "house")


@pytest.fixture(scope="module", params=[0.2, None], ids=["diffusing", "plain"])
def matcher(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> model.Matcher:
    file = tmp_path_factory.mktemp("words") / "tiny.safetensors"
    return model.load(tiny_checkpoint(file, words=WORDS, diffusion=request.param), dtype=torch.float32)


def test_words_lead_the_scores_of_each_sketch_as_they_lead_a_search(matcher: model.Matcher) -> None:
    pictures = [photo(SHAPES[seed % len(SHAPES)], 64, seed) for seed in range(9)]
    gallery = matcher.encode(torch.stack([matcher.prepare(picture, "photo") for picture in pictures]), "photo")
    sketch = matcher.encode(matcher.prepare(drawing("star"), "sketch")[None], "sketch")
    alone = matcher.scores(sketch, gallery, "rn").numpy().repeat(len(LABELS), axis=0)
    found = word_matrices(matcher, LABELS, gallery, {"rn": alone})
    assert set(found) == {WORD, "rn+word"}
    for row, label in enumerate(LABELS):
        scores = matcher.word_scores(gallery, [matcher.book.find(label)])[0]
        expected = led_by_word(torch.from_numpy(alone[row]), named(scores, scores.max()), "rn")
        np.testing.assert_allclose(found["rn+word"][row], expected.numpy(), rtol=1e-5)
        # The best by the word is among the first, whatever its photos look like.
        assert int(scores.argmax()) in np.argsort(-found[WORD][row])[:3]
    np.testing.assert_array_equal(found[WORD][0], found[WORD][2])
    with pytest.raises(UnknownWord):
        word_matrices(matcher, ("zebra",), gallery, {"rn": alone[:1]})


def test_the_command_measures_words_on_large_galleries_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--words", "--data", str(tmp_path)]) == BAD_INPUT
    assert "--words is for --protocol fresh, everything, everyday" in capsys.readouterr().err
