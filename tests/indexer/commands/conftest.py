"""The environment of every command."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, weights: Path, index_path: Path) -> None:
    monkeypatch.setenv("SBIR_WEIGHTS", str(weights))
    monkeypatch.setenv("SBIR_INDEX", str(index_path))
    for name in ("SBIR_DEVICE", "SBIR_THREADS"):
        monkeypatch.delenv(name, raising=False)
