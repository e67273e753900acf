"""What tests of the model have in common."""

from __future__ import annotations

import pytest


@pytest.fixture
def with_curve() -> None:
    """For tests that look at the curve of a training."""


@pytest.fixture(autouse=True)
def without_curves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other tests draw none: it takes longer than the few steps of their trainings."""
    if "with_curve" not in request.fixturenames:
        monkeypatch.setattr("model.training.loop.draw_curve", lambda log, picture: False)
