"""python -m tests.fuzzing NAME: run a fuzzer, or one of its cases again."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.fuzzing.campaign import fuzz, numbers
from tests.fuzzing.targets import NAMES, fuzzer


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m tests.fuzzing", description=__doc__)
    made.add_argument("name", choices=NAMES)
    made.add_argument("--seed", type=int, default=0, metavar="N", help="of all chance (0)")
    made.add_argument("--cases", type=int, metavar="N", help="how many (until --seconds are over)")
    made.add_argument("--seconds", type=float, default=600, help="at most so long (600)")
    made.add_argument("--case", type=int, action="append", metavar="N", help="this one only, again for more")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases; 1 where one fails."""
    options = parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = fuzzer(options.name, folder / "samples")
        cases = options.case or numbers(options.cases)
        tally = fuzz(made, options.seed, folder / "cases", cases, options.seconds)
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
