"""What the tests of commands share: somebody who answers, and what an index is said to hold."""

from __future__ import annotations

import io

import pytest

from indexer.commands import main


class Terminal(io.StringIO):
    """A terminal at which somebody types an answer."""

    def isatty(self) -> bool:
        return True


def info(capsys: pytest.CaptureFixture[str]) -> str:
    """Returns the output of the command info about the index that the environment names."""
    assert main(["info"]) == 0
    return capsys.readouterr().out
