"""Results of benches and soaks, and the blocks of docs/speed.md that show them.

``python -m tests.benchmarks.results DIR`` prints the tables of what benches or soaks wrote to DIR. With ``--page`` it
also writes them into a page, each between ``<!-- begin: NAME -->`` and ``<!-- end: NAME -->``, and leaves all other
blocks as they are.
"""

import argparse
import datetime
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from pydantic import BaseModel, Field, ValidationError

from sketch_search.indexer.store.files import write_atomically
from sketch_search.model.errors import ModelError
from sketch_search.training.pages import processor, rewrite_page, table

Cell: TypeAlias = int | float | str | None
Row: TypeAlias = dict[str, Cell]

SOAKS = Path(__file__).parents[2] / "build" / "soak"


def commit() -> str:
    """Returns the first digits of the checkout's commit; "" outside a repository."""
    asked = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=8", "HEAD"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()


class Result(BaseModel):
    """The result of one bench or one soak.

    Attributes:
        name: of its block. Results of one name become one table.
        machine: what it was measured on, and by what device, threads, precision and PyTorch. date: the day. commit: of
            the checkout.
        command: the command line.
        quick: whether it was the shortest form, which shows that all works and proves nothing.
        said: sentences above the table, such as the size of the gallery.
        rows: of the table, by their columns, whose names have the units.
    """

    name: str
    command: str
    machine: str = Field(default_factory=processor)
    date: str = Field(default_factory=lambda: datetime.datetime.now(datetime.UTC).date().isoformat())
    commit: str = Field(default_factory=commit)
    quick: bool = False
    said: str = ""
    rows: list[Row] = []

    def save(self, document: Path) -> None:
        """Write it as JSON, all or nothing."""
        write_atomically(document, f"{self.model_dump_json(indent=1)}\n".encode())

    def markdown(self) -> str:
        foot = f"{self.machine}; {self.date}{f', {self.commit}' if self.commit else ''}: `{self.command}`"
        return "\n\n".join(filter(None, (self.said, _table(self.rows), foot)))


def shown(cell: Cell) -> str:
    """Returns the text of a cell; a float has three digits, or as many as its whole part."""
    if cell is None:
        return ""
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:#.3g}" if abs(cell) >= 1 else f"{cell:.3g}"
    return f"{cell:,}" if isinstance(cell, int) else cell


def _table(rows: Sequence[Row]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return table([columns, *([shown(row.get(column)) for column in columns] for row in rows)])


def read_results(folder: Path, *, quick: bool = False) -> dict[str, Result]:
    """Reads the results in a folder, those of one name as one. Raises ModelError for a quick one."""
    found: dict[str, Result] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            result = Result.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise ModelError(f"{path} is not as this version writes it; measure it again ({error})") from error
        if result.quick and not quick:
            raise ModelError(f"{path} is of a quick run, which proves nothing; measure it again without --quick")
        found.setdefault(result.name, result.model_copy(update={"rows": []})).rows.extend(result.rows)
    if not found:
        raise ModelError(f"there is no result in {folder}; run the benches with --output there first")
    return found


class Soak(BaseModel):
    """How often a long test did what its sentence says, how often that failed, and how far the server's memory grew."""

    times: int = 0
    failed: int = 0
    grown_mib: float | None = None


@contextmanager
def soak(what: str, folder: Path = SOAKS) -> Iterator[Soak]:
    """Yields what a long test counts in; when the block ends, it becomes a row of the block Reliability."""
    run, begun = Soak(), time.monotonic()
    try:
        yield run
    except BaseException:
        run.failed = run.failed or 1
        raise
    finally:
        took = time.monotonic() - begun
        row: Row = {"what": what, "times": run.times, "failed": run.failed, "memory grew by (MiB)": run.grown_mib}
        folder.mkdir(parents=True, exist_ok=True)
        result = Result(name="Reliability", command="make soak", rows=[row | {"took (s)": took}])
        result.save(folder / f"{re.sub('[^a-z0-9]+', '-', what.lower())[:60]}.json")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the blocks of the results, and write them into the page; 2 with a sentence where one is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.results", description=__doc__)
    parser.add_argument("results", type=Path, metavar="DIR", help="the folder that the benches or soaks wrote to")
    parser.add_argument("--page", type=Path, metavar="FILE", help="also write the tables into the blocks of this page")
    parser.add_argument("--quick", action="store_true", help="take results of quick runs, too")
    options = parser.parse_args(arguments)
    try:
        results = read_results(options.results, quick=options.quick)
        blocks = {name: result.markdown() for name, result in results.items()}
        if options.page:
            rewrite_page(options.page, blocks)
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n\n".join(f"{name}\n\n{text}" for name, text in blocks.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
