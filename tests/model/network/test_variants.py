"""Variants of a sketch, and the mean of their [Ret]."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import model
from model.errors import ModelError
from model.matcher import Matcher
from model.network.tokens import MOST_VARIANTS, Tokens, seen_together, sketch_variants
from tests.networks import tiny_checkpoint
from tests.pictures import drawing, photo


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


def test_the_first_variant_is_the_sketch_and_fewer_variants_are_the_first_ones(one: Matcher) -> None:
    sketch = one.prepare(drawing("star"), "sketch")[None]
    variants = sketch_variants(sketch, MOST_VARIANTS)
    assert variants.shape == (MOST_VARIANTS, *sketch.shape[1:])
    assert torch.equal(variants[:1], sketch)
    assert torch.equal(sketch_variants(sketch, 2), variants[:2])


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


def test_photos_have_one_variant(one: Matcher, three: Matcher) -> None:
    pixels = one.prepare(photo("star"), "photo")[None]
    assert torch.equal(one.encode(pixels, "photo").features, three.encode(pixels, "photo").features)
    assert len(three.variants_of(pixels[0], "photo")) == 1


def test_sketches_that_are_encoded_together_do_not_change_each_other(three: Matcher) -> None:
    sketches = torch.stack([three.prepare(drawing(shape), "sketch") for shape in ("circle", "star")])
    together = three.encode(sketches, "sketch").features
    assert torch.equal(together[1:], three.encode(sketches[1:], "sketch").features)


def test_an_explanation_tells_the_score_of_the_variants(three: Matcher) -> None:
    sketch, shown = drawing("star"), photo("star")
    found = three.explain(sketch, shown)
    tokens = three.encode(three.prepare(sketch, "sketch")[None], "sketch")
    photos = three.encode(three.prepare(shown, "photo")[None], "photo")
    assert found.ret_distance == pytest.approx(three.ret_distances(tokens, photos).item(), abs=1e-5)


def test_the_mean_is_of_directions_not_of_lengths() -> None:
    variants = Tokens.of_ret(torch.tensor([[3.0, 0.0], [0.0, 100.0]]))
    assert torch.allclose(seen_together(variants).ret, torch.tensor([[3.0, 3.0]]) / 2**0.5)


def test_a_sketch_without_further_variants_keeps_its_tokens_bit_for_bit(one: Matcher) -> None:
    sketch = one.prepare(drawing("star"), "sketch")[None]
    assert torch.equal(one.encode(sketch, "sketch").features, one.network.encode(sketch, "sketch").features)


@pytest.mark.parametrize("variants", [0, MOST_VARIANTS + 1])
def test_a_number_of_variants_that_there_are_not_is_refused(checkpoint: Path, variants: int) -> None:
    with pytest.raises(ModelError, match=f"1 to {MOST_VARIANTS} variants, not {variants}"):
        model.load(checkpoint, variants=variants)
