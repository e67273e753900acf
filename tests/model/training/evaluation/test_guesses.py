import math
from pathlib import Path

import numpy as np
import pytest
import torch

from sketch_search import model
from sketch_search.model.engine import SelfAttention, Tokens
from sketch_search.model.errors import ModelError
from sketch_search.model.explanation import Explanation
from sketch_search.model.terminal import BAD_INPUT
from sketch_search.model.training.commands import main
from sketch_search.model.training.corpus import Corpus
from sketch_search.model.training.evaluation import answers
from sketch_search.model.training.tasks import Task
from tests.learning import write_class_folders
from tests.networks import matcher_of, tiny_checkpoint, tiny_network, vocabulary
from tests.pictures import SHAPES

FIRST, SECOND = SHAPES[:2]


@pytest.fixture
def task(tmp_path: Path) -> Task:
    corpus = write_class_folders(tmp_path, seeds=range(2), shapes=SHAPES[:2])
    return Task(corpus, groups={FIRST: frozenset({FIRST}), SECOND: frozenset({SECOND})})


def test_guesses_are_right_where_they_name_the_class(task: Task) -> None:
    def matcher(*biases: float) -> model.Matcher:
        known = vocabulary(directions=torch.zeros(2, 32), biases=torch.tensor(biases), guess_none=-1e4)
        network = tiny_network().vocabulary_replaced(known, ((FIRST,), ("sea lion",)))
        return matcher_of(network)

    # All sketches look like the first word most, and a little like the other.
    found = answers.measure_guesses(matcher(1.0, 0.5), task)
    count = len(task.corpus.sketches)
    assert found[FIRST] == answers.GuessFigures(count // 2, named=1.0, first=1.0, among=1.0, shown=2.0)
    assert found[SECOND] == answers.GuessFigures(count // 2, named=0.0, first=0.0, among=0.0, shown=2.0)
    assert found["all"] == answers.GuessFigures(count, named=0.5, first=0.5, among=0.5, shown=2.0)
    assert answers.measure_guesses(matcher(0.5, 1.0), task)[FIRST].first == 0.0
    lines = answers.guess_table(found).splitlines()
    assert lines[0].split() == ["sketches", "named", "first", "right", "one", "right", "guesses"]
    assert lines[1].split() == ["all", str(count), "0.500", "0.500", "0.500", "2.00"]


@pytest.mark.parametrize(("share", "guessed"), [(0.05, []), (0.02, []), (0.005, ["monkey"])])
def test_what_may_be_a_person_is_not_guessed_to_be_an_animal(share: float, guessed: list[str]) -> None:
    chances = torch.tensor([0.9 - share, share]).log()
    known = vocabulary(directions=torch.zeros(2, 32), biases=chances, guess_scale=1.0, guess_none=math.log(0.1))
    matcher = matcher_of(tiny_network().vocabulary_replaced(known, (("monkey",), ("person",))))
    sketch = Tokens.of_ret(np.ones((1, 32), np.float32))
    assert [guess.word for guess in matcher.guesses(sketch)] == guessed


def test_guesses_without_a_vocabulary_or_data_are_refused(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModelError, match="no vocabulary, and guesses nothing"):
        answers.measure_guesses(matcher_of(tiny_network()), task)
    weights = tiny_checkpoint(tmp_path / "tiny.safetensors", words=((FIRST,),))
    monkeypatch.delenv("SKETCH_SEARCH_DATA", raising=False)
    assert main(["guesses", "--weights", str(weights)]) == BAD_INPUT
    assert "set SKETCH_SEARCH_DATA to the folder" in capsys.readouterr().err


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_class_folders(tmp_path_factory.mktemp("composites"), seeds=range(3))


def test_the_default_network_points_at_the_thing_drawn_and_a_random_one_does_not(corpus: Corpus) -> None:
    found = answers.measure_parts(model.load(), corpus, corpus, 18)
    assert (found.composites, found.classes, found.pairs, found.order) == (18, 9, 0, None)
    assert found.right.low > answers.CHANCE
    assert found.right.low <= found.right.value <= found.right.high
    senseless = answers.measure_parts(matcher_of(tiny_network()), corpus, corpus, 80)
    assert senseless.right.low < answers.CHANCE < senseless.right.high
    assert senseless.right.value < 0.4


def test_the_order_of_parts_is_that_of_the_columns_and_rows_of_their_matches() -> None:
    def kept(drawn: list[int], found: list[int]) -> tuple[float, float]:
        attention = SelfAttention(np.zeros((1, 1, 4, 4), np.float32), ())
        correspondence = np.zeros((len(drawn), 16), np.float32)
        correspondence[np.arange(len(drawn)), found] = 1
        cells = np.arange(16)
        return answers.order_kept(Explanation(4, attention, attention, np.array(drawn), cells, correspondence, 0.0))

    corners = [0, 3, 12, 15]
    assert kept(corners, [5, 6, 9, 10]) == (1, 1)
    assert kept(corners, [6, 5, 10, 9]) == (0.5, 1), "mirrored: rows alone are in order"
    assert kept(corners, [5, 5, 5, 5]) == (0.5, 0.25)
