from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from model.checkpoint.file import load_network, save_checkpoint
from model.errors import ModelError
from model.matcher import MOST_GUESSES, Matcher
from model.network.config import ModelConfig
from model.network.ret_network import SHARE, Vocabulary
from model.network.tokens import Tokens
from model.network.zse import Network
from tests.networks import tiny_config, tiny_network, with_words

WORDS = (("dog", "domestic dog"), ("cat",), ("sea lion",))


@pytest.fixture
def network() -> Network:
    return with_words(tiny_network(), WORDS)


@pytest.fixture
def matcher(network: Network) -> Matcher:
    return Matcher(network, "0" * 64)


def photos(count: int) -> Tokens:
    return Tokens.of_ret(torch.randn(count, 32, generator=torch.Generator().manual_seed(5)))


def test_a_photo_scores_by_the_word_it_points_to_less_what_its_other_words_have() -> None:
    vocabulary = Vocabulary(2, 3)
    vocabulary.directions.copy_(torch.tensor([[4.0, 0.0, 0.0], [0.0, 4.0, 0.0]]))
    vocabulary.biases.copy_(torch.tensor([1.0, 0.0]))
    ret = torch.tensor([[9.0, 0.0, 0.0], [0.0, 0.1, 0.0]])
    expected = torch.tensor([[5.0, 0.0], [1.0, 4.0]])
    torch.testing.assert_close(vocabulary(ret), expected)
    torch.testing.assert_close(vocabulary(ret, torch.tensor([1])), expected[:, 1:])
    torch.testing.assert_close(vocabulary.levels(ret), SHARE * expected.exp().sum(dim=1).log())
    torch.testing.assert_close(vocabulary.guess(ret)[0], torch.tensor([5.0, 0.0, 0.0]).softmax(dim=0)[:2])


def test_a_word_is_as_probable_for_a_sketch_as_the_things_that_it_names() -> None:
    vocabulary = Vocabulary(3, 2, drawn=[2, -1, 2, 0])
    vocabulary.sketch_directions.copy_(torch.tensor([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.0, 9.0]]))
    vocabulary.sketch_biases.copy_(torch.tensor([0.0, 0.5, 0.0, 0.0]))
    vocabulary.guess_scale.fill_(2.0)
    vocabulary.guess_none.fill_(4.0)
    armchair, anvil, chair, dog, _ = torch.tensor([6.0, 5.0, 2.0, 0.0, 4.0]).softmax(dim=0)
    found = vocabulary.guess(torch.tensor([[7.0, 0.0]]))
    torch.testing.assert_close(found, torch.stack([dog, torch.tensor(0.0), armchair + chair])[None])
    assert found.sum() < 1 - anvil


def test_a_photos_words_do_not_depend_on_the_photos_beside_it(matcher: Matcher) -> None:
    gallery = photos(150)
    scores = matcher.word_scores(gallery, [2, 0])
    assert scores.shape == (2, 150)
    alone = [matcher.word_scores(gallery[row : row + 1], [2, 0]) for row in range(150)]
    assert torch.equal(scores, torch.cat(alone, dim=1))
    assert torch.equal(scores, matcher.word_scores(gallery, [2, 0], matcher.word_levels(gallery)))
    assert matcher.word_scores(gallery[:0], [1]).shape == (1, 0)
    assert matcher.words == ("dog", "cat", "sea lion")


def test_guesses_are_probable_words_in_order_or_none(network: Network) -> None:
    assert network.vocabulary is not None
    sketch = photos(1)
    network.vocabulary.guess_none.fill_(-1e4)
    guesses = Matcher(network, "0" * 64).guesses(sketch)
    probabilities = [guess.probability for guess in guesses]
    assert 0 < len(guesses) <= MOST_GUESSES
    assert probabilities == sorted(probabilities, reverse=True)
    network.vocabulary.guess_none.fill_(1e4)
    assert Matcher(network, "0" * 64).guesses(sketch) == ()


def test_a_checkpoint_without_a_vocabulary_has_no_words() -> None:
    matcher = Matcher(tiny_network(), "0" * 64)
    assert matcher.words == ()
    assert matcher.guesses(photos(1)) == ()
    assert matcher.word_levels(photos(3)) is None
    with pytest.raises(ModelError, match="no vocabulary; sketch-search model words gives it one"):
        matcher.word_scores(photos(3), [0])


def test_a_checkpoint_keeps_its_vocabulary(network: Network, tmp_path: Path) -> None:
    save_checkpoint(network, tmp_path / "with.safetensors")
    again = load_network(tmp_path / "with.safetensors")
    assert again.config.words == WORDS
    assert again.vocabulary is not None
    assert network.vocabulary is not None
    for name, value in network.vocabulary.state_dict().items():
        assert torch.equal(again.vocabulary.state_dict()[name], value)
    plain = again.without_vocabulary()
    assert plain.config.words == ()
    assert plain.without_vocabulary() is plain
    torch.testing.assert_close(plain.state_dict(), tiny_network().state_dict())
    assert ModelConfig.from_json(network.config.to_json()) == network.config


def test_a_checkpoint_keeps_what_guesses_are_learned_from(tmp_path: Path) -> None:
    learned = Vocabulary(3, 32, drawn=[0, 2, -1])
    learned.sketch_directions.copy_(photos(3).ret)
    learned.guess_none.fill_(-1e4)
    network = tiny_network().vocabulary_replaced(learned, WORDS)
    save_checkpoint(network, tmp_path / "with.safetensors")
    again = load_network(tmp_path / "with.safetensors")
    assert again.config.drawn == (0, 2, -1)
    guesses = [Matcher(one, "0" * 64).guesses(photos(1)) for one in (network, again)]
    assert guesses[0] == guesses[1] != ()
    assert again.without_vocabulary().config.drawn == ()


@pytest.mark.parametrize("drawn", [(3,), (-2,), (0,) * 20_001], ids=range(3))
def test_things_that_cannot_be_are_refused(drawn: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match=r"numbers of words, or -1|at most 20,000"):
        tiny_config(words=WORDS, drawn=drawn)
    with pytest.raises(ModelError, match="unusable network configuration"):
        tiny_config(drawn=drawn)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((("dog",),) * 20_001, "at most 20,000, not 20,001"),
        (((),), "1 to 16 names, not 0"),
        ((("dog",) * 17,), "1 to 16 names, not 17"),
        ((("",),), "must have letters"),
        ((("d" * 101,),), "at most 100 characters"),
        ((("dog", "d\x1bg"),), "control characters"),
        ((("dog",), ("Dog",)), "a name of its own"),
    ],
    ids=range(7),
)
def test_words_that_cannot_be_are_refused(words: tuple[tuple[str, ...], ...], sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        tiny_config(words=words)


def test_a_configuration_with_words_of_another_type_is_refused(network: Network) -> None:
    text = dataclasses.replace(network.config).to_json().replace('"cat"', "7")
    with pytest.raises(ModelError, match="configuration cannot be read: words"):
        ModelConfig.from_json(text)
