"""Runs the cases of a fuzzer one after the other, counts what became of them, and says how to repeat a failure."""

from __future__ import annotations

import itertools
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Protocol

from tests.fuzzing.limited import MOST_BYTES, MOST_SECONDS, Outcome, run_limited

# Inputs of failures are kept here.
KEPT = Path(__file__).parents[2] / "build" / "fuzz"
# Characters of a program's output that a failure shows.
_SHOWN = 3000


@dataclass(frozen=True)
class Case:
    """One hostile input.

    Attributes:
        about: what it is, in a line. function, arguments: what is called with it, in a process with limits.
        seconds: of a processor that it may take.
    """

    about: str
    function: Callable[..., int]
    arguments: tuple[Any, ...]
    seconds: int = MOST_SECONDS


class Fuzzer(Protocol):
    """Makes cases, and judges what became of them.

    Attributes:
        name: by which the command line knows it.
    """

    name: str

    def make(self, chance: Random, folder: Path) -> Case:
        """A case by this chance; its files go into ``folder``, which is empty and is where it runs."""

    def judge(self, case: Case, outcome: Outcome) -> list[str]:
        """What became of each of its inputs, in words that are counted. AssertionError, with a sentence: may not be."""


@dataclass
class Tally:
    """What became of the cases.

    Attributes:
        seed: of all chance. made: how many inputs. results: how often each result. failures: one text each.
    """

    name: str
    seed: int
    made: int = 0
    seconds: float = 0.0
    results: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        results = ", ".join(f"{count:,} {result}" for result, count in self.results.most_common())
        return (
            f"{self.name}, seed {self.seed}: {self.made:,} inputs in {self.seconds:.0f} s: {results or 'none'}; "
            f"{len(self.failures)} failures"
        )


def fuzz(fuzzer: Fuzzer, seed: int, folder: Path, cases: Iterable[int], seconds: float = float("inf")) -> Tally:
    """Run these cases, by their numbers, until so many seconds are over. ``folder``: for their files; is emptied."""
    tally, begun = Tally(fuzzer.name, seed), time.monotonic()
    for number in cases:
        if time.monotonic() - begun > seconds:
            break
        place = folder / f"case-{number}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        case = fuzzer.make(Random(f"{fuzzer.name} {seed} {number}"), place)
        outcome = run_limited(case.function, case.arguments, place, case.seconds)
        try:
            check(outcome)
            results = fuzzer.judge(case, outcome)
            tally.made += len(results)
            tally.results.update(results)
        except AssertionError as error:
            tally.made += 1
            kept = KEPT / f"{fuzzer.name}-{seed}-{number}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(place, kept, symlinks=True, ignore=_pipes)
            tally.failures.append(
                f"{case.about}: {error}\n  repeat it: python -m tests.fuzzing {fuzzer.name} --seed {seed} --case "
                f"{number}\n  its files, as it left them: {kept}\n{outcome.out[-_SHOWN:]}{outcome.err[-_SHOWN:]}"
            )
            print(tally.failures[-1], flush=True)
        shutil.rmtree(place, ignore_errors=True)
    tally.seconds = time.monotonic() - begun
    print(tally, flush=True)
    return tally


def numbers(count: int | None) -> Iterable[int]:
    """The numbers of so many cases; None: without end."""
    return itertools.count() if count is None else range(count)


def _pipes(folder: str, names: list[str]) -> list[str]:
    """Those of the names that cannot be copied."""
    return [name for name in names if Path(folder, name).is_fifo()]


def check(outcome: Outcome) -> None:
    """What holds for every case: no hang, no crash, no traceback. AssertionError, with a sentence: it does not."""
    assert outcome.code is not None, f"hangs: killed after {outcome.seconds:.0f} s"
    assert outcome.code != -24, "takes too many seconds of a processor"
    assert outcome.code >= 0, f"the process is ended by signal {-outcome.code}"
    short = re.search("^MemoryError|allocate memory|not enough memory", outcome.err, re.MULTILINE)
    assert short is None, f"takes more than {MOST_BYTES >> 20} MiB"
    assert "Traceback (most recent call last)" not in outcome.err + outcome.out, "a traceback"
