"""The precision of a network is one rule, however the program is entered."""

from __future__ import annotations

import argparse

import pytest
import torch

from indexer.commands.running import open_matcher as of_the_indexer
from model import load
from model.network import zse
from service.engine import open_matcher as of_the_service
from service.settings import Settings


@pytest.mark.parametrize(("multiplies", "precision"), [(True, torch.bfloat16), (False, torch.float32)])
def test_indexing_by_command_and_serving_take_the_fastest_precision_of_the_processor(
    monkeypatch: pytest.MonkeyPatch, multiplies: bool, precision: torch.dtype
) -> None:
    monkeypatch.setattr(zse, "multiplies_bf16", lambda: multiplies)
    by_command = of_the_indexer(argparse.Namespace(weights=None, device="cpu"))
    by_server = of_the_service(Settings.model_validate({"device": "cpu"}))
    assert by_command.dtype == by_server.dtype == load().dtype == precision
