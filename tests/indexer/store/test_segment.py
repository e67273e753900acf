from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from indexer.store.segment import RowArrays, RowRef, Rows, open_segment, quantised, write_segment

Floats = npt.NDArray[np.float32]
# What float16 holds, which is all that is kept.
VALUES = st.floats(-65504, 65504, width=16)


def rows_of(features: npt.NDArray[np.floating]) -> RowArrays:
    """Photos of format 1 with these features, (m, n, d)."""
    count, tokens, _ = features.shape
    ret = np.arange(count, dtype=np.float32)[:, None]
    return RowArrays(ret, ret, features.astype(np.float16), np.zeros((count, tokens - 1), np.uint8))


@settings(max_examples=200, deadline=None)
@given(arrays_of.arrays(np.float32, (2, 3, 5), elements=VALUES))
def test_a_token_comes_back_within_half_its_scale(features: Floats) -> None:
    steps, scales = quantised(features)
    assert (steps.dtype.name, scales.dtype.name, scales.shape) == ("int8", "float32", (2, 3))
    # And what float32 rounds on the way.
    assert (np.abs(steps * scales[..., None] - features) <= scales[..., None] * (0.5 + 1e-4)).all()
    assert (np.abs(steps).max(axis=-1) == np.where(scales > 0, 127, 0)).all()


def test_ties_go_to_the_even_step_and_zero_stays_zero() -> None:
    steps, scales = quantised(np.array([[127, 0.5, 1.5, -0.5, -2.5], [0, 0, 0, 0, 0]], np.float32))
    assert steps.tolist() == [[127, 0, 2, 0, -2], [0] * 5]
    assert scales.tolist() == [1, 0]


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_shows_in_the_scale_of_its_token_alone(value: float) -> None:
    features = np.ones((1, 3, 4), np.float32)
    features[0, 1, 2] = value
    assert np.isfinite(quantised(features)[1]).tolist() == [[True, False, True]]


def test_rows_of_both_formats_become_one_segment_and_those_written_now_stay_as_they_are(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(6, 3, 4)).astype(np.float16)
    old, new = rows_of(features[:3]), rows_of(features[3:]).quantised()
    rows = Rows({"old": old, "new": new})
    refs = [RowRef("new", 2), RowRef("old", 0), RowRef("new", 0), RowRef("old", 2)]
    write_segment(tmp_path / "s", rows, refs)
    opened = open_segment(tmp_path / "s")
    steps, scales = quantised(features[[5, 0, 3, 2]])
    assert opened.tokens is not None
    assert opened.scales is not None
    assert np.array_equal(opened.tokens, steps)
    assert np.array_equal(opened.scales, scales)
    assert np.array_equal(opened.features([1, 2]), (steps * scales[..., None])[1:3])
    assert np.array_equal(rows.features(refs[1:2])[0], features[0].astype(np.float32))
    assert opened.quantised() is opened
