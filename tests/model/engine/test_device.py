"""Where a network computes, with and without NVIDIA's driver and PyTorch."""

import sys
from types import SimpleNamespace

import pytest

from sketch_search.model import matcher, where_it_computes


@pytest.mark.parametrize(
    ("driver", "torch", "device", "said"),
    [
        (True, True, "auto", "the GPU"),
        (True, False, "auto", "the CPU; to use the GPU: pip install 'sketch-search[gpu]'"),
        (False, True, "auto", "the CPU"),
        (True, True, "cpu", "the CPU"),
    ],
)
def test_a_gpu_is_used_where_pytorch_is_installed_and_else_the_remedy_is_named(
    driver: bool, torch: bool, device: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matcher, "_has_driver", lambda: driver)
    monkeypatch.setattr(matcher.importlib.util, "find_spec", lambda name: SimpleNamespace() if torch else None)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: True)))
    assert where_it_computes(device) == said
