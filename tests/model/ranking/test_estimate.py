"""Estimated scores against the formula written out pair by pair."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from model.network.calibration import Method
from model.ranking.diffusion import PRIOR_WEIGHT, estimated

THRESHOLD = 0.3
PHOTOS = 12


def gallery(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores that fall with the distance, more or less; the distances; and [Ret] in two loose groups."""
    generator = torch.Generator().manual_seed(seed)
    distances = 0.8 + 0.4 * torch.rand(PHOTOS, generator=generator)
    scores = (3 - 5 * distances + 0.5 * torch.randn(PHOTOS, generator=generator)).sigmoid()
    groups = torch.randn(2, 6, generator=generator)
    return scores, distances, groups[torch.arange(PHOTOS) % 2] + 0.6 * torch.randn(PHOTOS, 6, generator=generator)


def some(count: int) -> torch.Tensor:
    return torch.arange(PHOTOS) % (PHOTOS // count) == 0


@pytest.mark.parametrize("method", ["rn", "fused"])
def test_a_score_is_the_line_by_distance_and_what_photos_like_it_lie_off_it(method: Method) -> None:
    scores, distances, ret = gallery(seed=1)
    if method == "fused":
        scores = 10 * scores - 7
    known = some(4)
    unit = ret.double().numpy() / np.linalg.norm(ret.double().numpy(), axis=1, keepdims=True)
    unit = unit - unit.mean(axis=0)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    values = {i: float(scores[i]) for i in range(PHOTOS) if known[i]}
    if method == "rn":
        values = {i: math.log(value / (1 - value)) for i, value in values.items()}
    slope, start = np.polyfit([float(distances[i]) for i in values], list(values.values()), 1)
    assert slope < 0
    after = estimated(scores, known, distances, ret, THRESHOLD, method)
    for i in range(PHOTOS):
        if known[i]:
            assert after[i] == scores[i]
            continue
        alike = {j: max(0.0, float(unit[i] @ unit[j]) - THRESHOLD) for j in values}
        off = sum(weight * (values[j] - start - slope * float(distances[j])) for j, weight in alike.items())
        likely = start + slope * float(distances[i]) + off / (PRIOR_WEIGHT + sum(alike.values()))
        assert float(after[i]) == pytest.approx(1 / (1 + math.exp(-likely)) if method == "rn" else likely, abs=1e-5)


def test_the_line_never_rises_with_the_distance() -> None:
    scores, distances, _ = gallery(seed=2)
    apart = torch.eye(PHOTOS)  # no two photos are alike
    known = some(6)
    after = estimated(distances / 2, known, distances, apart, THRESHOLD, "fused")[~known]
    torch.testing.assert_close(after, torch.full_like(after, float(distances[known].mean()) / 2))
    assert estimated(scores, known, torch.ones(PHOTOS), apart, THRESHOLD, "rn").isfinite().all()


def test_with_nothing_scored_the_nearest_by_ret_is_the_best() -> None:
    scores, distances, ret = gallery(seed=3)
    after = estimated(scores, torch.zeros(PHOTOS, dtype=torch.bool), distances, ret, THRESHOLD, "rn")
    assert after.argsort(descending=True).tolist() == distances.argsort().tolist()


def test_scores_that_were_rounded_to_0_or_1_leave_the_others_between() -> None:
    scores, distances, ret = gallery(seed=4)
    known = some(4)
    after = estimated(scores.round(), known, distances, ret, THRESHOLD, "rn")
    assert ((after[~known] > 0) & (after[~known] < 1)).all()
