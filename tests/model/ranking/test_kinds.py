"""Kinds against the walk down the ranking, written out photo by photo."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from model.ranking import likeness
from model.ranking.diffusion import centred
from model.ranking.likeness import ALIKE, kinds_of, mean_direction


def gallery(seed: int, photos: int, groups: int = 4) -> torch.Tensor:
    """[Ret] in a few loose groups, with something that all of them share."""
    generator = torch.Generator().manual_seed(seed)
    middles = torch.randn(groups, 8, generator=generator)
    ret = middles[torch.randint(groups, (photos,), generator=generator)]
    return 3 * (ret + 0.5 * torch.randn(photos, 8, generator=generator) + 0.7)


def walked(ret: torch.Tensor, mean: torch.Tensor, threshold: float) -> list[int]:
    unit = F.normalize(F.normalize(ret.float(), dim=1) - mean, dim=1)
    cosines = (unit @ unit.T).tolist()
    firsts: list[int] = []
    kinds: list[int] = []
    for photo in range(len(ret)):
        like = [kind for kind, first in enumerate(firsts) if cosines[first][photo] > threshold]
        kinds.append(like[0] if like else len(firsts))
        if not like:
            firsts.append(photo)
    return kinds


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    photos=st.integers(0, 40),
    threshold=st.sampled_from([-0.5, 0.0, ALIKE, 0.8, 0.99]),
)
def test_a_photo_joins_the_first_kind_whose_first_photo_it_looks_like(seed: int, photos: int, threshold: float) -> None:
    ret = gallery(seed, photos)
    mean = mean_direction(gallery(seed + 1, 50))
    found = kinds_of(ret, mean, threshold)
    assert found.dtype == torch.int64
    assert found.tolist() == walked(ret, mean, threshold)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1000), photos=st.integers(1, 60), groups=st.integers(1, 9))
def test_kinds_are_numbered_in_the_order_of_their_first_photos_which_are_unlike_each_other(
    seed: int, photos: int, groups: int
) -> None:
    ret = gallery(seed, photos, groups)
    mean = mean_direction(ret)
    found = kinds_of(ret, mean).tolist()
    firsts = [found.index(kind) for kind in range(max(found) + 1)]
    assert firsts == sorted(firsts)
    assert sorted(set(found)) == list(range(len(firsts)))
    directions = centred(ret, mean)
    cosines = directions @ directions.T
    assert all(cosines[a, b] <= ALIKE for a in firsts for b in firsts if a != b)
    assert all(cosines[firsts[kind], photo] > ALIKE for photo, kind in enumerate(found) if photo != firsts[kind])


def test_a_longer_ranking_leaves_the_kinds_of_its_beginning_as_they_are() -> None:
    ret = gallery(seed=5, photos=80)
    mean = mean_direction(ret)
    whole = kinds_of(ret, mean)
    for photos in (1, 2, 17, 79):
        assert kinds_of(ret[:photos], mean).tolist() == whole[:photos].tolist()


def test_a_photo_joins_the_better_kind_also_where_it_looks_more_like_a_later_one() -> None:
    angles = torch.tensor([0.0, 100.0, 57.0]).deg2rad()
    ret = torch.stack([angles.cos(), angles.sin()], dim=1)
    assert kinds_of(ret, torch.zeros(2)).tolist() == [0, 1, 0]


def test_what_all_photos_of_the_gallery_share_makes_none_the_kind_of_another() -> None:
    ret = torch.tensor([[1.0, 0.1, 0.0], [1.0, -0.1, 0.0], [1.0, 0.0, 0.1], [1.0, 0.0, -0.1]])
    assert kinds_of(ret, mean_direction(ret)).tolist() == [0, 1, 2, 3]
    assert kinds_of(ret, torch.zeros(3)).tolist() == [0, 0, 0, 0]


def test_what_only_the_photos_of_the_ranking_share_makes_them_a_kind() -> None:
    gallery = torch.tensor([[1.0, 0.05], [1.0, -0.05], [-1.0, 0.05], [-1.0, -0.05]])
    mean = mean_direction(gallery)
    assert kinds_of(gallery[:2], mean).tolist() == [0, 0]
    assert kinds_of(gallery[:2], mean_direction(gallery[:2])).tolist() == [0, 1]


@pytest.mark.parametrize("photos", [1, 5])
def test_photos_that_are_exactly_the_mean_are_each_of_a_kind(photos: int) -> None:
    ret = gallery(seed=2, photos=1).expand(photos, -1)
    assert kinds_of(ret, mean_direction(ret)).tolist() == list(range(photos))


def test_the_mean_is_that_of_directions_whatever_their_lengths_and_in_whatever_portions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ret = gallery(seed=9, photos=50)
    unit = ret.double().numpy()
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    lengths = torch.rand(50, 1, generator=torch.Generator().manual_seed(1)) + 0.1
    for batch in (1, 7, 50, 1000):
        monkeypatch.setattr(likeness, "_BATCH", batch)
        mean = mean_direction(ret * lengths)
        assert mean.dtype == torch.float32
        np.testing.assert_allclose(mean.numpy(), unit.mean(axis=0), atol=1e-6)


def test_the_mean_of_no_photos_is_zero() -> None:
    assert mean_direction(torch.empty(0, 8)).tolist() == [0.0] * 8
