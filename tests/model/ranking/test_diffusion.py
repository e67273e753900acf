from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import model
import model.ranking.diffusion
from model.errors import ModelError
from model.network.calibration import Method
from model.ranking.diffusion import diffused
from tests.networks import tiny_calibration, tiny_checkpoint

THRESHOLD = 0.4
RANGES = {"rn": (0.0, 1.0), "ret": (-2.0, 0.0), "fused": (-12.0, 12.0)}


def gallery(seed: int, photos: int, sketches: int = 2) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Scores by every method, and [Ret] in a few loose groups."""
    generator = torch.Generator().manual_seed(seed)
    groups = torch.randn(4, 8, generator=generator)
    ret = groups[torch.arange(photos) % 4] + 0.7 * torch.randn(photos, 8, generator=generator)
    uniform = torch.rand(sketches, photos, generator=generator)
    return {name: low + (high - low) * uniform for name, (low, high) in RANGES.items()}, ret


def written_out(scores: NDArray[np.float64], ret: NDArray[np.float64], method: str) -> NDArray[np.float64]:
    """One sketch's (p,) scores, pair by pair."""
    unit = ret / np.linalg.norm(ret, axis=1, keepdims=True)
    unit = unit - unit.mean(axis=0)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    support = {"rn": scores, "ret": np.exp(-(scores**2) / 0.2), "fused": np.exp((scores - scores.max()) / 2)}[method]
    for _ in range(3):
        rows = []
        for i in range(len(ret)):
            weights = np.array(
                [1 - THRESHOLD if i == j else max(0.0, unit[i] @ unit[j] - THRESHOLD) for j in range(len(ret))]
            )
            rows.append(weights @ support / weights.sum())
        support = np.array(rows)
    back: dict[str, NDArray[np.float64]] = {
        "rn": support,
        "ret": -np.sqrt(-0.2 * np.log(support)),
        "fused": scores.max() + 2 * np.log(support),
    }
    return back[method]


def test_fused_scores_are_diffused_alike_wherever_they_lie() -> None:
    scores, ret = gallery(seed=4, photos=30)
    near, far = (diffused(scores["fused"] + shift, ret, THRESHOLD, "fused") - shift for shift in (0.0, -64.0))
    torch.testing.assert_close(near, far, atol=1e-4, rtol=1e-4)
    assert torch.isfinite(diffused(100 * scores["fused"], ret, THRESHOLD, "fused")).all()


@pytest.mark.parametrize("method", get_args(Method))
def test_three_rounds_average_each_photo_with_those_above_the_threshold(method: Method) -> None:
    scores, ret = gallery(seed=1, photos=30)
    after = diffused(scores[method], ret, THRESHOLD, method)
    for row in range(2):
        expected = written_out(scores[method][row].double().numpy(), ret.double().numpy(), method)
        np.testing.assert_allclose(after[row].numpy(), expected, atol=1e-5, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), photos=st.integers(1, 40), method=st.sampled_from(get_args(Method)))
def test_scores_stay_between_the_lowest_and_the_highest_and_follow_their_photos(
    seed: int, photos: int, method: Method
) -> None:
    scores, ret = gallery(seed, photos)
    before, after = scores[method], diffused(scores[method], ret, THRESHOLD, method)
    assert (after <= before.max(dim=1, keepdim=True).values + 1e-4).all()
    assert (after >= before.min(dim=1, keepdim=True).values - 1e-4).all()
    order = torch.randperm(photos, generator=torch.Generator().manual_seed(seed))
    turned = diffused(before[:, order], ret[order], THRESHOLD, method)
    torch.testing.assert_close(turned, after[:, order], atol=1e-5, rtol=1e-5)


def test_a_photo_like_no_other_keeps_its_score() -> None:
    scores = torch.tensor([[0.3, 0.9, 0.8]])
    after = diffused(scores, torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0]]), THRESHOLD, "rn")
    assert float(after[0, 0]) == pytest.approx(0.3)
    assert 0.8 < float(after[0, 2]) < float(after[0, 1]) < 0.9


def test_a_photo_misjudged_among_its_like_passes_a_stray_one() -> None:
    scores = torch.tensor([[0.9, 0.8, 0.85, 0.2, 0.4]])
    ret = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2], [1.0, 0.15], [-1.0, 0.3]])
    after = diffused(scores, ret, THRESHOLD, "rn")[0]
    assert after[3] > after[4]
    assert after[4] == pytest.approx(0.4)


def test_what_all_photos_share_makes_none_the_like_of_another() -> None:
    ret = torch.tensor([[1.0, 0.1, 0.0], [1.0, -0.1, 0.0], [1.0, 0.0, 0.1], [1.0, 0.0, -0.1]])
    scores = torch.tensor([[0.1, 0.4, 0.6, 0.9]])
    torch.testing.assert_close(diffused(scores, ret, THRESHOLD, "rn"), scores)
    apart = torch.eye(4)[:, :3] + 0.0
    assert torch.isfinite(diffused(scores, apart, THRESHOLD, "rn")).all()


def test_only_the_shortlist_is_diffused_and_the_rest_follow_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.ranking.diffusion, "SHORTLIST", 6)
    scores, ret = gallery(seed=3, photos=20, sketches=1)
    before, after = scores["rn"], diffused(scores["rn"], ret, THRESHOLD, "rn")
    order = before[0].argsort(descending=True)
    first, rest = order[:6], order[6:]
    torch.testing.assert_close(after[0, first], diffused(before[:, first], ret[first], THRESHOLD, "rn")[0])
    assert (after[0, rest] <= after[0, first].min()).all()
    assert (after[0, rest].diff() <= 0).all()


def test_a_checkpoint_without_a_threshold_says_so(tmp_path: Path) -> None:
    matcher = model.load(tiny_checkpoint(tmp_path / "tiny.safetensors"))
    with pytest.raises(ModelError, match="has no threshold for diffusion"):
        matcher.diffuse(torch.zeros(1, 2), torch.ones(2, 32))


@pytest.mark.parametrize("threshold", [1.0, -1.5])
def test_a_threshold_that_no_cosine_can_pass_or_miss_is_refused(threshold: float) -> None:
    with pytest.raises(ModelError, match="diffusion must lie in"):
        tiny_calibration(diffusion=threshold)
