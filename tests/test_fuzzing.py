"""The fuzzers: a few cases always, many with `make soak`."""

from __future__ import annotations

import random
from pathlib import Path
from random import Random

import pytest

from tests.fuzzing.campaign import Case, fuzz, numbers
from tests.fuzzing.limited import Outcome
from tests.fuzzing.targets import NAMES, fuzzer
from tests.soak_report import noted

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="limits are set by what /proc tells")
#: Seconds that `make soak` gives to each.
LONG = 300
SHORT = {"pictures": 1, "checkpoints": 4, "indexes": 2, "command-lines": 3}


def test_no_fuzzer_finds_anything_in_a_few_cases(tmp_path: Path) -> None:
    for name in NAMES:
        tally = fuzz(fuzzer(name, tmp_path / name / "samples"), 1, tmp_path / name / "cases", numbers(SHORT[name]))
        assert not tally.failures, tally.failures[0]
        assert tally.made == tally.results.total() >= SHORT[name]


@pytest.mark.soak
@pytest.mark.parametrize("name", NAMES)
def test_no_fuzzer_finds_anything_in_minutes(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Other cases each time; the tally and every failure tell the seed.
    seed = random.SystemRandom().randrange(2**31)
    with noted(f"fuzzed {name}") as run, capsys.disabled():
        tally = fuzz(fuzzer(name, tmp_path / "samples"), seed, tmp_path / "cases", numbers(None), LONG)
        run.made, run.failed = tally.made, len(tally.failures)
    assert not tally.failures, tally.failures[0]


def crash(way: str) -> int:
    """Go wrong in this way."""
    held = bytearray(2**31) if way == "memory" else b""
    if way == "traceback":
        raise ZeroDivisionError
    if way == "crash":
        import ctypes

        ctypes.string_at(0)
    while way == "time":
        pass
    return len(held)


class Faulty:
    """A fuzzer of a function that goes wrong."""

    name = "faulty"

    def make(self, chance: Random, folder: Path) -> Case:
        (folder / "input").write_bytes(chance.randbytes(4))
        return Case("a fault", crash, (chance.choice(("traceback", "crash", "memory", "time", "none")),), seconds=1)

    def judge(self, case: Case, outcome: Outcome) -> list[str]:
        return ["sound"]


def test_whatever_goes_wrong_is_told_with_how_to_repeat_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tests.fuzzing.campaign.KEPT", tmp_path / "kept")
    ways = [Random(f"faulty 5 {number}") for number in range(40)]
    for chance in ways:
        chance.randbytes(4)
    chosen = [chance.choice(("traceback", "crash", "memory", "time", "none")) for chance in ways]
    said = {"traceback": "a traceback", "crash": "ended by signal", "memory": "1024 MiB", "time": "of a processor"}
    for way, sentence in said.items():
        number = chosen.index(way)
        tally = fuzz(Faulty(), 5, tmp_path / "cases", [number])
        assert sentence in tally.failures[0]
        assert f"--seed 5 --case {number}\n" in tally.failures[0]
        assert len((tmp_path / "kept" / f"faulty-5-{number}" / "input").read_bytes()) == 4
    assert not fuzz(Faulty(), 5, tmp_path / "cases", [chosen.index("none")]).failures
    assert "faulty, seed 5: 1 inputs" in capsys.readouterr().out
