"""python -m tests.soak_report: the README's table of reliability, of what the last `make soak` has noted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel

FOLDER = Path(__file__).parents[1] / "build" / "soak"
#: What the long tests do, by the name of the file each leaves.
RUNS = {
    "kills": "Builds and updates killed at 200 moments, `remove`, `compact` and `repair` in front of each of their "
    "writes; run again, they leave what they leave undisturbed",
    "store": "Files changed and commands run in any order; then the index is what a plain model expects",
    "contract": "Requests made up from the contract and against it; each answer is as documented",
    "requests": "Requests of every kind in a row, odd and damaged files among them; each is answered as it should be",
    "swaps": "Requests answered while another build went live 60 times",
}


class Run(BaseModel):
    """One long test.

    Attributes:
        made: how often it was done what RUNS says. failed: how often that went wrong; 1 where a test ends with the
            first. seconds: of the whole test. grown_mib: how much more memory the server had in the end; None where
            nobody looked.
    """

    made: int = 0
    failed: int = 0
    seconds: float = 0.0
    grown_mib: float | None = None


@contextmanager
def noted(name: str, folder: Path = FOLDER) -> Iterator[Run]:
    """A Run to be filled in by the block, and then written as one of RUNS, whether the block fails or not."""
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


def table(folder: Path = FOLDER) -> str:
    """A row for each of RUNS; those that were not made are said to be so."""
    lines = ["| what | times | failed | memory grew by | took |", "| --- | --- | --- | --- | --- |"]
    for name, what in RUNS.items():
        try:
            run = Run.model_validate_json((folder / f"{name}.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            lines.append(f"| {what} | not run | | | |")
            continue
        grown = "" if run.grown_mib is None else f"{run.grown_mib:.1f} MiB"
        lines.append(f"| {what} | {run.made:,} | {run.failed} | {grown} | {run.seconds:.0f} s |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
