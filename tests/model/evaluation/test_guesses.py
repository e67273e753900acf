"""Guessed words are counted as right where they name what was drawn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.commands.command_line import main
from model.datasets.tasks import GroupedTask
from model.errors import ModelError
from model.evaluation.guesses import GuessFigures, guess_table, measure_guesses
from model.matcher import Matcher
from model.terminal import BAD_INPUT
from tests.learning import write_class_folders
from tests.networks import tiny_checkpoint, tiny_network, with_words
from tests.pictures import SHAPES

FIRST, SECOND = SHAPES[:2]


@pytest.fixture
def task(tmp_path: Path) -> GroupedTask:
    corpus = write_class_folders(tmp_path, seeds=range(2), shapes=SHAPES[:2])
    return GroupedTask(corpus, {FIRST: frozenset({FIRST}), SECOND: frozenset({SECOND})})


def test_guesses_are_right_where_they_name_the_class(task: GroupedTask) -> None:
    network = with_words(tiny_network(), ((FIRST,), ("sea lion",)))
    assert network.vocabulary is not None
    # All sketches look like the first word most, and a little like the other.
    network.vocabulary.directions.zero_()
    network.vocabulary.biases.copy_(torch.tensor([1.0, 0.5]))
    network.vocabulary.guess_scale.fill_(1.0)
    network.vocabulary.guess_none.fill_(-1e4)
    found = measure_guesses(Matcher(network, "0"), task)
    count = len(task.corpus.sketches)
    assert found[FIRST] == GuessFigures(count // 2, named=1.0, first=1.0, among=1.0, shown=2.0)
    assert found[SECOND] == GuessFigures(count // 2, named=0.0, first=0.0, among=0.0, shown=2.0)
    assert found["all"] == GuessFigures(count, named=0.5, first=0.5, among=0.5, shown=2.0)
    network.vocabulary.biases.copy_(torch.tensor([0.5, 1.0]))
    assert measure_guesses(Matcher(network, "0"), task)[FIRST].first == 0.0
    lines = guess_table(found).splitlines()
    assert lines[0].split() == ["sketches", "named", "first", "right", "one", "right", "guesses"]
    assert lines[1].split() == ["all", str(count), "0.500", "0.500", "0.500", "2.00"]


def test_a_checkpoint_without_words_guesses_nothing(task: GroupedTask) -> None:
    with pytest.raises(ModelError, match="no vocabulary, and guesses nothing"):
        measure_guesses(Matcher(tiny_network(), "0"), task)


def test_the_command_says_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tiny_checkpoint(tmp_path / "tiny.safetensors", words=((FIRST,),))
    monkeypatch.delenv("SKETCH_SEARCH_DATA", raising=False)
    assert main(["guesses", "--weights", str(weights)]) == BAD_INPUT
    assert "SKETCH_SEARCH_DATA" in capsys.readouterr().err
