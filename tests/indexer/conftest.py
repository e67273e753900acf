"""A small network and a small gallery for every test of the indexer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

import model
from indexer.building import staging
from model.decoding import Decoders
from tests.indexer.galleries import save_photos
from tests.networks import tiny_checkpoint


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="session")
def matcher(weights: Path) -> model.Matcher:
    return model.load(weights, dtype=torch.float32)


@pytest.fixture(scope="session")
def other_matcher(tmp_path_factory: pytest.TempPathFactory) -> model.Matcher:
    """A second checkpoint, to be refused where the first is expected."""
    return model.load(tiny_checkpoint(tmp_path_factory.mktemp("weights") / "other.safetensors", seed=1))


@pytest.fixture(scope="session")
def decoders() -> Iterator[Decoders]:
    with Decoders(4) as running:
        yield running


@pytest.fixture
def own_decoders() -> None:
    """For tests whose builds are to start decoding processes of their own."""


@pytest.fixture(autouse=True)
def shared_decoders(decoders: Decoders, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds of a test take decoding processes that are there: to start one takes longer than a small build.

    What modules build once, and what programs build, starts its own, as users' builds do.
    """
    if "own_decoders" not in request.fixturenames:
        monkeypatch.setattr(staging, "Decoders", lambda most: nullcontext(decoders))


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    """Twelve photos in two folders."""
    return save_photos(tmp_path / "photos", 12)


@pytest.fixture
def index_path(tmp_path: Path) -> Path:
    return tmp_path / "index"
