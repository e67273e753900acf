from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from indexer.store.rows import RowArrays, Rows, open_tokens, quantised, write_segment
from tests.indexer.galleries import refs_to

Floats = npt.NDArray[np.float32]
# The values that float16 can hold, which are all that is kept.
VALUES = st.floats(-65504, 65504, width=16)


@settings(max_examples=200, deadline=None)
@given(arrays_of.arrays(np.float32, (2, 3, 5), elements=VALUES))
def test_a_token_comes_back_within_half_its_scale(features: Floats) -> None:
    steps, scales = quantised(features)
    assert (steps.dtype.name, scales.dtype.name, scales.shape) == ("int8", "float32", (2, 3))
    # And what float32 rounds on the way.
    assert (np.abs(steps * scales[..., None] - features) <= scales[..., None] * (0.5 + 1e-4)).all()
    assert (np.abs(steps).max(axis=-1) == np.where(scales > 0, 127, 0)).all()


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_shows_in_the_scale_of_its_token_alone(value: float) -> None:
    features = np.ones((1, 3, 4), np.float32)
    features[0, 1, 2] = value
    assert np.isfinite(quantised(features)[1]).tolist() == [[True, False, True]]


def test_rows_of_a_segment_and_a_journal_become_one_segment(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(6, 3, 4)).astype(np.float16)
    steps, scales = quantised(features)
    arrays: dict[str, npt.NDArray[Any]] = {
        "tokens": steps,
        "positions": np.arange(12, dtype=np.uint8).reshape(6, 2),
        "scales": scales,
    }
    together = RowArrays({"vectors": np.arange(6, dtype=np.float16)[:, None], **arrays})
    rows = Rows({"old": together.take(slice(0, 3)), "journal": together.take(slice(3, 6))})
    refs = refs_to(("journal", 2), ("old", 0), ("journal", 0), ("old", 2))
    write_segment(tmp_path / "s", rows, refs)
    tokens = open_tokens(tmp_path / "s", 4, 4, 3)
    assert tokens is not None
    order = [5, 0, 3, 2]
    for name, array in arrays.items():
        assert np.array_equal(tokens.arrays[name][:], array[order])
        assert tokens.arrays[name].dtype == array.dtype
    assert np.array_equal(tokens.features([1, 2]), (steps * scales[..., None])[order][1:3])
    assert tokens.patches([1, 2]).tolist() == [[0, 1], [6, 7]]
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["positions.npy", "scales.npy", "tokens.npy"]
