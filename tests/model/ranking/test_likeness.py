"""Photos are compared by the cosines of centred [Ret], without a centred copy of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import model.ranking.likeness
from model.ranking.diffusion import centred
from model.ranking.likeness import ALIKE, Likeness, mean_direction


def gallery(seed: int, photos: int) -> torch.Tensor:
    """[Ret] in a few loose groups, of all lengths."""
    generator = torch.Generator().manual_seed(seed)
    groups = torch.randn(4, 8, generator=generator)
    ret = groups[torch.arange(photos) % 4] + 0.7 * torch.randn(photos, 8, generator=generator)
    return ret * torch.exp(torch.randn(photos, 1, generator=generator))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), photos=st.integers(2, 60), examples=st.integers(1, 5), batch=st.integers(1, 70))
def test_it_is_the_highest_cosine_of_what_is_left_without_the_mean(
    seed: int, photos: int, examples: int, batch: int
) -> None:
    ret = gallery(seed, photos)
    chosen = torch.arange(photos)[:examples]
    directions = centred(ret, mean_direction(ret))
    expected = (directions @ directions[chosen].T).max(dim=1).values
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.ranking.likeness, "_BATCH", batch)
        likeness = Likeness(ret)
        assert likeness.to(chosen) == pytest.approx(expected, abs=1e-4)
        some = torch.arange(photos).flip(0)[: photos // 2]
        assert likeness.to(chosen, some) == pytest.approx(expected[some], abs=1e-4)
        # These photos are taken as if they were not in the gallery.
        assert likeness.to(chosen[:1], some, others=ret[chosen]) == pytest.approx(expected[some], abs=1e-4)


def test_a_photo_is_as_much_like_itself_as_can_be() -> None:
    assert Likeness(gallery(1, 20)).to(torch.tensor([3]))[3] == pytest.approx(1)


def test_without_examples_nothing_is_like_them() -> None:
    nobody = torch.empty(0, dtype=torch.int64)
    assert Likeness(gallery(1, 3)).to(nobody).tolist() == [-1] * 3
    assert Likeness(torch.empty(0, 8)).to(nobody).tolist() == []


def test_a_photo_that_is_exactly_the_mean_is_like_no_photo() -> None:
    same = Likeness(torch.ones(3, 8))
    assert same.to(torch.tensor([0])).tolist() == [0, 0, 0]
    assert same.leaving(torch.tensor([0]), torch.tensor([1])).tolist() == [True, False, False]


def test_unliked_photos_leave_with_their_kind_and_liked_ones_hold_theirs() -> None:
    ret = gallery(2, 40)
    directions = centred(ret, mean_direction(ret))
    cosines = directions @ directions.T
    likeness = Likeness(ret)
    alone = likeness.leaving(torch.tensor([5]), torch.empty(0, dtype=torch.int64))
    assert alone.tolist() == (cosines[5] > ALIKE).tolist()
    # One of the same kind is liked: those that look more like it stay.
    friend = next(n for n in range(40) if alone[n] and n != 5)
    both = likeness.leaving(torch.tensor([5]), torch.tensor([friend]))
    assert both.tolist() == ((cosines[5] > ALIKE) & (cosines[5] >= cosines[friend])).tolist()
    assert both[5]
    assert not both[friend]
    assert int(both.sum()) < int(alone.sum())
