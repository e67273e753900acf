"""What all benchmark commands share: their options, the output folder and the checkpoint."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

import model
from model.checkpoint.file import default_checkpoint
from service.settings import Settings
from tests.benchmarks.circumstances import Call

# Published command lines name this folder, whichever one the run wrote to.
OUTPUT = "build/bench"


class Command(argparse.ArgumentParser):
    """A parser with --output, --weights and --quick; also --device where the benchmark computes by itself."""

    def __init__(self, name: str, description: str | None, *, device: bool) -> None:
        super().__init__(prog=f"python -m tests.benchmarks.{name}", description=description)
        self.add_argument("--output", type=Path, required=True, metavar="DIR")
        self.add_argument(
            "--weights", type=Path, metavar="FILE", help="checkpoint (SBIR_WEIGHTS, else the embedded one)"
        )
        self.add_argument("--quick", action="store_true", help="the shortest form: it shows that all works, no more")
        if device:
            self.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where to compute (cpu)")

    def begin(self, arguments: Sequence[str] | None) -> tuple[argparse.Namespace, Call]:
        """Parse the options and make the output folder. Returns the options and how the benchmark was called.

        Args:
            arguments: the command line; None for that of this process.
        """
        words = sys.argv[1:] if arguments is None else arguments
        options = self.parse_args(words)
        options.output.mkdir(parents=True, exist_ok=True)
        told = [OUTPUT if word == str(options.output) else word for word in words]
        return options, Call(f"{self.prog} {shlex.join(told)}", options.quick)

    def load(self, options: argparse.Namespace, dtype: torch.dtype | None = None) -> model.Matcher:
        """Load the checkpoint that the options name. Where there is none, the process ends with 2 and a sentence."""
        try:
            return model.load(self.weights(options), getattr(options, "device", "cpu"), dtype)
        except model.ModelError as error:
            self.error(str(error))

    def weights(self, options: argparse.Namespace) -> Path:
        """The file of the checkpoint that the options name. Where there is none, the process ends as in ``load``."""
        try:
            return default_checkpoint(options.weights or Settings().weights)
        except model.ModelError as error:
            self.error(str(error))
