"""These tests cover what networks add to [Ret]: variants of a sketch, the prior, the vocabulary."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import model
from model.checkpoint.file import load_network, save_checkpoint
from model.errors import ModelError
from model.explanation import explain, influential_pairs
from model.matcher import MOST_GUESSES, RET_CHUNK, Matcher
from model.network.ret_network import NEARNESS, SHARE, SHARPNESS, Prior, Vocabulary
from model.network.tokens import MOST_VARIANTS, Tokens, sketch_variants
from model.network.zse import Network
from tests.networks import randn, tiny_checkpoint, tiny_config, tiny_network, with_words
from tests.pictures import drawing

# This many photos are computed in two chunks, of which the second is padded.
SEVERAL_CHUNKS = RET_CHUNK + 18


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("variants") / "tiny.safetensors")


@pytest.fixture(scope="module")
def one(checkpoint: Path) -> Matcher:
    return model.load(checkpoint, dtype=torch.float32, variants=1)


@pytest.fixture(scope="module")
def three(checkpoint: Path) -> Matcher:
    return model.load(checkpoint, dtype=torch.float32, variants=3)


def extent(ink: torch.Tensor) -> tuple[int, int]:
    """Height and width that the ink of (3, H, W) takes, which is below its paper."""
    rows, columns = (ink.amax() - ink[0] > 0.2 * (ink.amax() - ink.amin())).nonzero().T
    return int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1


def test_a_checkpoint_says_how_many_variants_are_encoded(checkpoint: Path, tmp_path: Path) -> None:
    assert model.load(checkpoint).variants == MOST_VARIANTS
    assert model.load(tiny_checkpoint(tmp_path / "two.safetensors", variants=2)).variants == 2
    assert model.load(tmp_path / "two.safetensors", variants=1).variants == 1
    with pytest.raises(ModelError, match="variants must be 1 to 3"):
        tiny_checkpoint(tmp_path / "none.safetensors", variants=0)


def test_the_variants_are_larger_and_mirrored_with_a_thicker_pen_and_turned() -> None:
    # A bar of ink, left of the middle of white paper.
    sketch = torch.ones(1, 3, 200, 200)
    sketch[..., 60:140, 50:54] = -1
    _, larger, turned = sketch_variants(sketch, 3)
    height, width = extent(sketch[0])
    assert extent(larger)[0] == pytest.approx(1.15 * height, abs=2)
    rows, columns = (turned[0] < 0).nonzero().T
    assert columns.float().mean() > 120
    # Its top leans to the right: by 10 degrees of 80 pixels it is 14 pixels away from its foot.
    lean = columns[rows < 70].float().mean() - columns[rows > 130].float().mean()
    assert lean == pytest.approx(12, abs=3)
    assert (turned[0, 100] < 0).sum() > width


def test_paper_stays_paper_in_the_corners_of_every_variant(one: Matcher) -> None:
    sketch = one.prepare(drawing("circle"), "sketch")[None]
    paper = sketch[0, :, 0, 0]
    for variant in sketch_variants(sketch, 3):
        for edge in (variant[:, 0], variant[:, -1], variant[:, :, 0], variant[:, :, -1]):
            assert torch.allclose(edge[:, :8], paper[:, None].expand(-1, 8))


def test_several_variants_change_ret_alone_and_keep_its_length(one: Matcher, three: Matcher) -> None:
    sketch = one.prepare(drawing("square"), "sketch")[None]
    alone, together = one.encode(sketch, "sketch"), three.encode(sketch, "sketch")
    assert torch.allclose(together.patches, alone.patches, atol=1e-5)
    assert torch.equal(together.positions, alone.positions)
    directions = F.normalize(one.encode(sketch_variants(sketch, 3), "sketch").ret, dim=-1).mean(dim=0)
    assert F.cosine_similarity(together.ret[0], directions, dim=0) == pytest.approx(1, abs=1e-5)
    assert together.ret.norm() == pytest.approx(alone.ret.norm().item(), rel=1e-5)
    assert F.cosine_similarity(together.ret, alone.ret).item() < 0.99999


@pytest.mark.parametrize("variants", [0, MOST_VARIANTS + 1])
def test_a_number_of_variants_that_there_are_not_is_refused(checkpoint: Path, variants: int) -> None:
    with pytest.raises(ModelError, match=f"1 to {MOST_VARIANTS} variants, not {variants}"):
        model.load(checkpoint, variants=variants)


WEIGHTS = {"level": 0.1, "ret_weight": 1.5, "relation_weight": 8.0}


def with_prior(network: Network, **values: float) -> Network:
    """A copy of the network with a prior of eight random prototypes."""
    other = Network(dataclasses.replace(network.config, prototypes=8), network.calibration)
    other.load_state_dict(network.state_dict(), strict=False)
    assert other.prior is not None
    generator = torch.Generator().manual_seed(3)
    other.prior.prototypes.copy_(F.normalize(torch.randn(8, network.config.width, generator=generator), dim=1))
    for name, value in (WEIGHTS | values).items():
        getattr(other.prior, name).fill_(value)
    return other.requires_grad_(False).eval()


@pytest.fixture
def plain() -> Network:
    return tiny_network()


def encoded(matcher: Matcher, count: int = 5) -> tuple[Tokens, Tokens]:
    generator = torch.Generator().manual_seed(1)
    size = matcher.config.image_size
    images = torch.rand(2 * count, 3, size, size, generator=generator) * 2 - 1
    return matcher.encode(images[:count], "sketch"), matcher.encode(images[count:], "photo")


def test_the_nearer_a_photo_lies_to_its_nearest_prototypes_the_higher_is_its_prior() -> None:
    prior = Prior(2, 3)
    prior.prototypes.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    between, one, none = prior(torch.tensor([[1.0, 1.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])).tolist()
    assert one > between > none
    assert none == pytest.approx(0, abs=1e-6)
    assert one == pytest.approx(torch.tensor([SHARPNESS, 0.0]).exp().mean().log().item() / SHARPNESS, abs=1e-6)


def test_relation_logits_and_distances_are_lowered_by_the_weighted_prior_of_each_photo(plain: Network) -> None:
    changed = with_prior(plain)
    assert changed.prior is not None
    before, after = Matcher(plain, "0" * 64), Matcher(changed, "0" * 64)
    sketches, photos = encoded(before)
    priors = changed.prior(photos.ret)
    torch.testing.assert_close(
        after.relation_logits(sketches, photos), before.relation_logits(sketches, photos) - 8 * priors
    )
    cosines = F.normalize(sketches.ret, dim=1) @ F.normalize(photos.ret, dim=1).T - 1.5 * priors
    expected = (2 - 2 * cosines).clamp(0, 4).sqrt()
    torch.testing.assert_close(after.ret_distances(sketches, photos), expected, atol=1e-4, rtol=1e-4)


def test_a_photos_prior_does_not_depend_on_the_photos_beside_it(plain: Network) -> None:
    matcher = Matcher(with_prior(plain), "0" * 64)
    ret = randn(SEVERAL_CHUNKS, plain.config.width, seed=5)
    photos = Tokens.of_ret(ret)
    priors = matcher.priors(photos)
    assert priors is not None
    rows = range(0, SEVERAL_CHUNKS, 9)
    alone = [matcher.priors(photos[row : row + 1]) for row in rows]
    assert torch.equal(priors[rows], torch.cat([one for one in alone if one is not None]))
    sketches = Tokens.of_ret(ret[:3])
    assert torch.equal(matcher.ret_distances(sketches, photos), matcher.ret_distances(sketches, photos, priors))
    none = matcher.priors(photos[:0])
    assert none is not None
    assert none.shape == (0,)
    assert Matcher(plain, "0" * 64).priors(photos) is None


def test_an_explanation_has_the_scores_of_a_search(plain: Network) -> None:
    network = with_prior(plain)
    matcher = Matcher(network, "0" * 64, variants=1)
    size = network.config.image_size
    pictures = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(7)) * 2 - 1
    told = explain(network, pictures[:1], pictures[1:])
    sketch, photo = matcher.encode(pictures[:1], "sketch"), matcher.encode(pictures[1:], "photo")
    assert told.relation_score == pytest.approx(float(matcher.scores(sketch, photo, "rn")), abs=1e-6)
    assert told.ret_distance == pytest.approx(-float(matcher.scores(sketch, photo, "ret")), abs=1e-6)
    pairs = influential_pairs(network, sketch, photo)
    assert all(pair.drop > 0 for pair in pairs)


WORDS = (("dog", "domestic dog"), ("cat",), ("sea lion",))


@pytest.fixture
def network() -> Network:
    return with_words(tiny_network(), WORDS)


@pytest.fixture
def matcher(network: Network) -> Matcher:
    return Matcher(network, "0" * 64)


def photos(count: int) -> Tokens:
    return Tokens.of_ret(randn(count, 32, seed=5))


def test_a_photo_scores_by_the_word_it_points_to_less_what_its_other_words_have() -> None:
    vocabulary = Vocabulary(2, 3)
    vocabulary.directions.copy_(torch.tensor([[4.0, 0.0, 0.0], [0.0, 4.0, 0.0]]))
    vocabulary.biases.copy_(torch.tensor([1.0, 0.0]))
    ret = torch.tensor([[9.0, 0.0, 0.0], [0.0, 0.1, 0.0]])
    expected = torch.tensor([[5.0, 0.0], [1.0, 4.0]])
    torch.testing.assert_close(vocabulary(ret), expected)
    torch.testing.assert_close(vocabulary(ret, torch.tensor([1])), expected[:, 1:])
    torch.testing.assert_close(vocabulary.levels(ret), SHARE * expected.exp().sum(dim=1).log())
    torch.testing.assert_close(
        vocabulary.guess(Tokens.of_ret(ret))[0], torch.tensor([5.0, 0.0, 0.0]).softmax(dim=0)[:2]
    )


def test_a_word_is_as_probable_for_a_sketch_as_the_things_that_it_names() -> None:
    vocabulary = Vocabulary(3, 2, drawn=[2, -1, 2, 0])
    vocabulary.sketch_directions.copy_(torch.tensor([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.0, 9.0]]))
    vocabulary.sketch_biases.copy_(torch.tensor([0.0, 0.5, 0.0, 0.0]))
    vocabulary.guess_scale.fill_(2.0)
    vocabulary.guess_none.fill_(4.0)
    armchair, anvil, chair, dog, _ = torch.tensor([6.0, 5.0, 2.0, 0.0, 4.0]).softmax(dim=0)
    found = vocabulary.guess(Tokens.of_ret(torch.tensor([[7.0, 0.0]])))
    torch.testing.assert_close(found, torch.stack([dog, torch.tensor(0.0), armchair + chair])[None])
    assert found.sum() < 1 - anvil


def led(network: Network, **gains: float) -> Network:
    """A copy of the network whose guesses of three things lead it; nobody knows where photos of the last one lie."""
    vocabulary = Vocabulary(3, network.config.width, drawn=[0, 2, -1])
    generator = torch.Generator().manual_seed(4)
    for name in ("sketch_directions", "places"):
        getattr(vocabulary, name).copy_(F.normalize(torch.randn(3, network.config.width, generator=generator), dim=1))
    vocabulary.places[2] = 0
    vocabulary.guess_scale.fill_(3.0)
    for name, value in gains.items():
        getattr(vocabulary, name).fill_(value)
    return network.vocabulary_replaced(vocabulary, WORDS)


def test_a_sketch_and_a_photo_agree_as_far_as_they_probably_show_the_same_thing() -> None:
    vocabulary = Vocabulary(2, 2, drawn=[0, 1, -1])
    vocabulary.sketch_directions.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
    vocabulary.places.copy_(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 0.0]]))
    sketch, photo = torch.tensor([[5.0, 0.0]]), torch.tensor([[0.0, 2.0], [7.0, 0.0]])
    guessed = torch.tensor([1.0, 0.0, -1.0, 0.0]).softmax(dim=0)[:2]
    shown = torch.stack([(NEARNESS * torch.tensor(cosines)).softmax(dim=0) for cosines in ([0.0, 0.8], [1.0, 0.6])])
    torch.testing.assert_close(vocabulary.agreement(vocabulary.guessed(Tokens.of_ret(sketch)), photo), shown @ guessed)


def test_guesses_are_made_from_summaries_and_a_photo_in_a_sketchs_place_is_guessed_to_show_nothing() -> None:
    vocabulary = Vocabulary(2, 2, drawn=[0, 1], guess_width=3)
    vocabulary.sketch_directions.copy_(torch.tensor([[5.0, 0.0, 0.0], [0.0, 5.0, 0.0]]))
    sketch = dataclasses.replace(Tokens.of_ret(torch.tensor([[0.0, 1.0]])), summary=torch.tensor([[0.0, 4.0, 0.0]]))
    expected = torch.tensor([0.0, 5.0, 0.0]).softmax(dim=0)[:2]
    torch.testing.assert_close(vocabulary.guess(sketch)[0], expected)
    assert not vocabulary.guess(Tokens.of_ret(torch.tensor([[0.0, 1.0]]))).any()


def test_relation_logits_and_cosines_are_raised_where_guesses_and_photo_agree(plain: Network) -> None:
    before, after = Matcher(plain, "0" * 64), Matcher(led(plain, ret_gain=0.5, relation_gain=4.0), "0" * 64)
    sketches, gallery = encoded(before)
    agreements = after.network.agreements(after.network.guessed(sketches), gallery.ret)
    torch.testing.assert_close(
        after.relation_logits(sketches, gallery), before.relation_logits(sketches, gallery) + 4 * agreements
    )
    squares = before.ret_distances(sketches, gallery).square() + 2 * 0.5 * (1 - agreements)
    torch.testing.assert_close(after.ret_distances(sketches, gallery), squares.sqrt(), atol=1e-4, rtol=1e-4)
    unled = Matcher(led(plain), "0" * 64)
    assert torch.equal(unled.ret_distances(sketches, gallery), before.ret_distances(sketches, gallery))


def test_how_far_a_photo_agrees_does_not_depend_on_the_photos_beside_it(plain: Network) -> None:
    matcher, sketch, gallery = Matcher(led(plain, ret_gain=0.5), "0" * 64), photos(1), photos(SEVERAL_CHUNKS)
    rows = range(0, SEVERAL_CHUNKS, 9)
    alone = [matcher.ret_distances(sketch, gallery[row : row + 1]) for row in rows]
    assert torch.equal(matcher.ret_distances(sketch, gallery)[:, rows], torch.cat(alone, dim=1))


def test_a_photos_words_do_not_depend_on_the_photos_beside_it(matcher: Matcher) -> None:
    gallery, rows = photos(SEVERAL_CHUNKS), range(0, SEVERAL_CHUNKS, 9)
    scores = matcher.word_scores(gallery, [2, 0])
    assert scores.shape == (2, SEVERAL_CHUNKS)
    alone = [matcher.word_scores(gallery[row : row + 1], [2, 0]) for row in rows]
    assert torch.equal(scores[:, rows], torch.cat(alone, dim=1))
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


def test_a_checkpoint_keeps_its_prior_and_its_vocabulary(plain: Network, tmp_path: Path) -> None:
    network = with_words(with_prior(plain), WORDS)
    save_checkpoint(network, tmp_path / "with.safetensors")
    again = load_network(tmp_path / "with.safetensors")
    assert again.config == network.config
    torch.testing.assert_close(again.state_dict(), network.state_dict(), rtol=0, atol=0)
    without = again.vocabulary_replaced(None)
    assert without.config.words == ()
    torch.testing.assert_close(without.state_dict(), with_prior(plain).state_dict())


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
    assert again.vocabulary_replaced(None).config.drawn == ()


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
