"""The table of reliability in docs/figures.md, from what the last `make soak` has noted: its last step."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel

from tests.blocks import PageError, rewrite_page

BLOCK = "Reliability"
FOLDER = Path(__file__).parents[1] / "build" / "soak"
#: What each long test does, by the name of the file that it writes.
RUNS = {
    "kills": "Builds and updates killed at 200 moments; `remove`, `compact` and `repair` killed before each of their "
    "writes. Run again, each ends with the index that an undisturbed run makes",
    "lost machines": "Nodes of a Ray cluster killed at random moments, while 5,000 photos are built into three shards. "
    "They hold what an undisturbed build of one index holds",
    "lost copies": "Copies of two shards killed at random moments on a Ray cluster, while searches follow each other: "
    "half of them with one copy of each shard, half with two. With one, answers without the shard say so; with two, "
    "nothing is missing. What is found is ranked as before",
    "store": "Files changed and commands run in random order. The index is then what a simple model of it expects",
    "contract": "Requests generated from the contract, and against it. Each answer is as documented",
    "requests": "Requests of every kind in a row, with odd and damaged files among them. Each is answered as it should "
    "be",
    "swaps": "Requests answered while another build went live 60 times",
    "fuzzed pictures": "Picture files of every format with random edits. Each is opened or refused in a sentence",
    "fuzzed checkpoints": "Checkpoints with random edits. Each is refused in words, or works",
    "fuzzed indexes": "Indexes with random edits. Each is refused in a sentence, or answers as "
    "before, or `verify` finds the damage",
    "fuzzed command lines": "Random command lines. Each ends with a documented exit code and without a traceback",
}


class Run(BaseModel):
    """One long test.

    Attributes:
        made: how often it did what RUNS says.
        failed: how often that went wrong; 1 where a test ends with the first failure.
        seconds: how long the whole test took.
        grown_mib: how much more memory the server had at the end; None where that was not measured.
    """

    made: int = 0
    failed: int = 0
    seconds: float = 0.0
    grown_mib: float | None = None


@contextmanager
def noted(name: str, folder: Path = FOLDER) -> Iterator[Run]:
    """A Run for the block to fill in. It is written as one of RUNS when the block ends, also when it fails."""
    assert name in RUNS
    run, begun = Run(), time.monotonic()
    try:
        yield run
    except BaseException:
        run.failed = run.failed or 1
        raise
    finally:
        run.seconds = time.monotonic() - begun
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(run.model_dump_json() + "\n", encoding="utf-8")


def read(folder: Path) -> dict[str, Run]:
    """What was noted in ``folder``, by name; tests that did not run are left out."""
    files = {name: folder / f"{name}.json" for name in RUNS}
    return {name: Run.model_validate_json(file.read_bytes()) for name, file in files.items() if file.exists()}


def table(runs: dict[str, Run]) -> str:
    """A row for each of RUNS; tests that did not run are said to be so."""
    lines = ["| what | times | failed | memory grew by | took |", "| --- | --- | --- | --- | --- |"]
    for name, what in RUNS.items():
        run = runs.get(name)
        if run is None:
            lines.append(f"| {what} | not run | | | |")
            continue
        grown = "" if run.grown_mib is None else f"{run.grown_mib:.1f} MiB"
        lines.append(f"| {what} | {run.made:,} | {run.failed} | {grown} | {run.seconds:.0f} s |")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m tests.soak_report", description=__doc__)
    made.add_argument("--page", type=Path, metavar="FILE", help="also put the table into this page")
    return made


def main(arguments: Sequence[str] | None = None, folder: Path = FOLDER) -> int:
    """Print the table; put it into the page where every test has run, else 2 with a sentence."""
    options = parser().parse_args(arguments)
    runs = read(folder)
    print(table(runs))
    if options.page is None:
        return 0
    if missing := ", ".join(RUNS.keys() - runs.keys()):
        print(f"error: {options.page} is left as it is, for these did not run: {missing}", file=sys.stderr)
        return 2
    try:
        rewrite_page(options.page, {BLOCK: table(runs)})
    except PageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
