import shutil
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from huggingface_hub.errors import RepositoryNotFoundError

from sketch_search import model
from sketch_search.model.engine import Floats, Modality, Prior, Tokens, sketch_variants, unit
from sketch_search.model.engine.surface import SHARPNESS
from sketch_search.model.errors import ModelError
from sketch_search.model.limits import MAX_VARIANTS
from sketch_search.model.matcher import KEPT, Matcher
from sketch_search.model.torch import find_clip, read_backbone, read_clip
from sketch_search.model.torch.checkpoint import load_network, save_checkpoint
from sketch_search.model.torch.zse import Network
from tests.networks import READING, matcher_of, randn, saved_clip, tiny_checkpoint, tiny_network, vocabulary
from tests.pictures import drawing

SEVERAL = 530


def extent(ink: Floats) -> tuple[int, int]:
    """Height and width that the ink of (3, H, W) takes, which is below its paper."""
    rows, columns = np.nonzero(ink.max() - ink[0] > 0.2 * (ink.max() - ink.min()))
    return int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1


def test_a_checkpoint_says_how_many_variants_are_encoded(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "tiny.safetensors")
    assert model.load(checkpoint).variants == MAX_VARIANTS
    two = tiny_checkpoint(tmp_path / "two.safetensors", variants=2)
    assert (model.load(two).variants, model.load(two, variants=1).variants) == (2, 1)
    for variants in (0, MAX_VARIANTS + 1):
        with pytest.raises(ModelError, match=f"1 to {MAX_VARIANTS} variants, not {variants}"):
            model.load(checkpoint, variants=variants)


def test_the_variants_are_larger_and_mirrored_with_a_thicker_pen_and_turned() -> None:
    # A bar of ink, left of the middle of white paper.
    sketch = np.ones((3, 200, 200), np.float32)
    sketch[..., 60:140, 50:54] = -1
    _, larger, turned = sketch_variants(sketch, 3)
    height, width = extent(sketch)
    assert extent(larger)[0] == pytest.approx(1.15 * height, abs=2)
    rows, columns = np.nonzero(turned[0] < 0)
    assert columns.mean() > 120
    # Its top leans to the right: by 10 degrees of 80 pixels it is 14 pixels away from its foot.
    lean = columns[rows < 70].mean() - columns[rows > 130].mean()
    assert lean == pytest.approx(12, abs=3)
    assert (turned[0, 100] < 0).sum() > width


def test_several_variants_change_ret_alone_and_keep_its_length(plain: Network) -> None:
    one, three = (matcher_of(plain, variants) for variants in (1, 3))
    sketch = one.prepare(drawing("square"), "sketch")[None]
    alone, together = one.encode(sketch, "sketch"), three.encode(sketch, "sketch")
    np.testing.assert_allclose(together.patches, alone.patches, atol=1e-4)
    assert np.array_equal(together.positions, alone.positions)
    direction = unit(one.encode(sketch_variants(sketch[0], 3), "sketch").ret).mean(axis=0)
    assert unit(together.ret[0]) @ unit(direction) == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(together.ret) == pytest.approx(np.linalg.norm(alone.ret), rel=1e-5)
    assert unit(together.ret[0]) @ unit(alone.ret[0]) < 0.99999
    np.testing.assert_allclose(three.encode(sketch, "sketch", variants=1).ret, alone.ret, atol=1e-4)


def test_the_latest_sketches_are_encoded_once_by_variant(plain: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    matcher, asked = matcher_of(plain, 3), list[int]()
    encode = matcher.engine.encode

    def counted(pictures: Floats, modality: Modality) -> Tokens:
        asked.append(len(pictures))
        return encode(pictures, modality)

    monkeypatch.setattr(matcher.engine, "encode", counted)
    sketch, *others = randn(1 + KEPT, 3, 64, 64, seed=9).numpy()
    for variants in (1, 3, 1, 3):
        matcher.encode(sketch[None], "sketch", variants)
    assert asked == [1, 2]
    for other in others:
        matcher.encode(other[None], "sketch", 1)
    matcher.encode(sketch[None], "sketch", 1)
    assert asked == [1, 2, *[1] * KEPT, 1]


def with_prior(network: Network) -> Network:
    return network.prior_replaced(Prior(unit(randn(8, network.config.width, seed=3).numpy()), 0.1, 1.5, 8.0))


@pytest.fixture
def plain() -> Network:
    return tiny_network()


def encoded(matcher: Matcher, count: int = 5) -> tuple[Tokens, Tokens]:
    size = matcher.config.image_size
    images = np.random.default_rng(1).random((2 * count, 3, size, size), np.float32) * 2 - 1
    return matcher.encode(images[:count], "sketch"), matcher.encode(images[count:], "photo")


def test_the_nearer_a_photo_lies_to_its_nearest_prototypes_the_higher_is_its_prior() -> None:
    prior = Prior(np.eye(2, 3, dtype=np.float32), 0.0, 0.0, 0.0)
    between, one, none = prior(np.array([[1.0, 1.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])).tolist()
    assert one > between > none
    assert none == pytest.approx(0, abs=1e-6)
    assert one == pytest.approx(torch.tensor([SHARPNESS, 0.0]).exp().mean().log().item() / SHARPNESS, abs=1e-6)


WORDS = (("dog", "domestic dog"), ("cat",), ("sea lion",))


def photos(count: int) -> Tokens:
    return Tokens.of_ret(randn(count, 32, seed=5).numpy())


def led(network: Network, **gains: Any) -> Network:
    """A copy of the network whose guesses of three things lead it; nobody knows where photos of the last one lie."""
    arrays: dict[str, Any] = {
        name: F.normalize(randn(3, network.config.width, seed=seed), dim=1)
        for seed, name in enumerate(("sketch_directions", "places", "directions"))
    }
    arrays["places"][2] = 0
    known = vocabulary([0, 2, -1], **arrays, guess_scale=3.0, **gains)
    return network.vocabulary_replaced(known, WORDS)


def test_few_photos_may_be_nearest_and_the_nearest_are_among_them(plain: Network) -> None:
    width = plain.config.width
    things: dict[str, Any] = {
        name: F.normalize(randn(20, width, seed=seed), dim=1) for seed, name in enumerate(("directions", "places"))
    }
    known = vocabulary(range(20), **things, sketch_directions=things["places"], guess_scale=9.0, ret_gain=0.5)
    matcher = matcher_of(with_prior(plain).vocabulary_replaced(known, tuple((name,) for name in ascii_lowercase[:20])))
    sketches, gallery = (Tokens.of_ret(randn(count, width, seed=count).numpy()) for count in (5, 400))
    known_of_photos = matcher.priors(gallery), matcher.nearness(gallery)
    for some in (sketches[:1], sketches[1:2], sketches[2:]):
        distances = matcher.ret_distances(some, gallery)
        may = matcher.may_be_nearest(some, gallery, 20, *known_of_photos)
        for way in (*distances, distances.mean(axis=0)):
            assert set(np.argsort(way)[:20]) <= set(may)
        assert len(may) < 60 * len(some)


def test_logits_and_cosines_are_lowered_by_the_prior_and_raised_where_guesses_agree(plain: Network) -> None:
    before, unled, after = map(matcher_of, (plain, led(plain), led(with_prior(plain), ret_gain=0.5, relation_gain=4.0)))
    sketches, gallery = encoded(before)
    priors = after.priors(gallery)
    assert priors is not None
    assert after.engine.vocabulary is not None
    agreements = after.engine.vocabulary.agreements(sketches, gallery.ret)
    logits = before.relation_logits(sketches, gallery) - 8 * priors + 4 * agreements
    np.testing.assert_allclose(after.relation_logits(sketches, gallery), logits, atol=1e-4)
    squares = before.ret_distances(sketches, gallery) ** 2 + 2 * (1.5 * priors + 0.5 * (1 - agreements))
    np.testing.assert_allclose(after.ret_distances(sketches, gallery), np.sqrt(squares), atol=1e-4, rtol=1e-4)
    assert np.array_equal(unled.ret_distances(sketches, gallery), before.ret_distances(sketches, gallery))


def test_prior_agreement_and_words_of_a_photo_do_not_depend_on_the_photos_beside_it(plain: Network) -> None:
    matcher = matcher_of(led(with_prior(plain), ret_gain=0.5))
    gallery, rows = photos(SEVERAL), range(0, SEVERAL, 9)

    def figures(some: Tokens) -> Floats:
        """The distance, which prior and guesses change, and the scores by two words: (3, photos)."""
        return np.concatenate([matcher.ret_distances(photos(1), some), matcher.word_scores(some, [2, 0])])

    alone = [figures(gallery[row : row + 1]) for row in rows]
    np.testing.assert_allclose(figures(gallery)[:, rows], np.concatenate(alone, axis=1), atol=1e-4)
    assert figures(gallery[:0]).shape == (3, 0)
    known = matcher.priors(gallery), matcher.word_levels(gallery)
    np.testing.assert_allclose(matcher.ret_distances(photos(1), gallery, known[0]), figures(gallery)[:1], atol=1e-5)
    np.testing.assert_allclose(matcher.word_scores(gallery, [2, 0], known[1]), figures(gallery)[1:], atol=1e-5)
    assert matcher_of(plain).priors(gallery) is None
    assert matcher.words == ("dog", "cat", "sea lion")


def test_a_checkpoint_keeps_its_prior_and_its_vocabulary(plain: Network, tmp_path: Path) -> None:
    network = led(with_prior(plain))
    save_checkpoint(network, tmp_path / "with.safetensors")
    again = load_network(tmp_path / "with.safetensors")
    assert (again.config, again.calibration) == (network.config, network.calibration)
    assert not [*tmp_path.glob("*.partial")]
    torch.testing.assert_close(again.state_dict(), network.state_dict(), rtol=0, atol=0)
    for part in ("prior", "vocabulary"):
        known, expected = (vars(getattr(one, part)) for one in (again, network))
        assert known.keys() == expected.keys()
        for name, value in known.items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-6)
    without = again.vocabulary_replaced(None)
    assert (without.config.words, without.vocabulary) == ((), None)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub that has one CLIP, me/clip, where no hub can be reached."""
    snapshot = tmp_path / "models--me--clip" / "snapshots" / ("0" * 40)
    (tmp_path / "models--me--clip" / "refs").mkdir(parents=True)
    (tmp_path / "models--me--clip" / "refs" / "main").write_text("0" * 40)
    snapshot.parent.mkdir()
    shutil.move(saved_clip(tmp_path / "saved", READING), snapshot)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    def unreachable(_: object, repository: str, timeout: float) -> None:
        assert timeout <= 10
        if repository == "me/nothing":
            raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)
        raise OSError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    return tmp_path


@pytest.mark.usefixtures("cache")
def test_a_clip_of_a_hub_that_is_on_this_disk_is_read_without_asking() -> None:
    found = find_clip("hf-hub:me/clip", download=False)
    assert (found.source, found.name) == ("hf-hub:me/clip", "CLIP hf-hub:me/clip")
    assert read_clip("hf-hub:me/clip").text(["a star"]).shape == (1, 16)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("tag", ["vit_tiny_patch16_224.augreg_in21k", "hf-hub:timm/vit_tiny_patch16_224"])
def test_a_backbone_of_a_hub_that_cannot_be_reached_is_said_at_the_first_try(tag: str) -> None:
    with pytest.raises(ModelError, match=r"hub cannot be reached \(Name or service not known\)"):
        read_backbone(tag)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("hf-hub:me/nothing", "the hub has no public repository me/nothing"),
        ("hf-hub:me/other", "the hub cannot be reached"),
        ("ViT-B-32/laion2b_s34b_b79k", "the hub cannot be reached"),
    ],
)
def test_a_clip_that_cannot_be_had_is_named_with_the_reason(source: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        read_clip(source)
    with pytest.raises(ModelError, match=r"not on this disk; name (it|them) with --embedder to download"):
        find_clip(source, download=False)
