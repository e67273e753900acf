"""The fuzzers by name."""

from __future__ import annotations

from pathlib import Path

from tests.fuzzing.campaign import Fuzzer
from tests.fuzzing.checkpoints import Checkpoints
from tests.fuzzing.command_lines import CommandLines
from tests.fuzzing.indexes import Indexes
from tests.fuzzing.pictures import Pictures
from tests.fuzzing.samples import make_samples

NAMES = ("pictures", "checkpoints", "indexes", "command-lines")


def fuzzer(name: str, folder: Path) -> Fuzzer:
    """The fuzzer of this name; what it edits is made in ``folder``."""
    if name == Pictures.name:
        return Pictures()
    samples = make_samples(folder)
    return {kind.name: kind for kind in (Checkpoints, Indexes, CommandLines)}[name](samples)
