"""What the tests of commands share: somebody who answers, and what an index is said to hold."""

from __future__ import annotations

import io

import pytest

from indexer.commands import main


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def info(capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["info"]) == 0
    return capsys.readouterr().out
