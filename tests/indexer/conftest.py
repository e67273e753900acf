"""A small network and a small gallery for every test of the indexer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import model
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


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    """Twelve photos in two folders."""
    return save_photos(tmp_path / "photos", 12)


@pytest.fixture
def index_path(tmp_path: Path) -> Path:
    return tmp_path / "index"
