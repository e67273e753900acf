import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from indexer.store.rows import quantised

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
