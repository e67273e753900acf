"""The table of test coverage in docs/figures.md, from what coverage.py measured: the last step of `make coverage`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from pydantic import BaseModel, ValidationError

from tests.blocks import PageError, rewrite_page

BLOCK = "Coverage"
PACKAGES = ("model", "indexer", "service")


class Counts(BaseModel):
    """What coverage.py counts in one file or in several."""

    num_statements: int = 0
    covered_lines: int = 0
    num_branches: int = 0
    covered_branches: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            num_statements=self.num_statements + other.num_statements,
            covered_lines=self.covered_lines + other.covered_lines,
            num_branches=self.num_branches + other.num_branches,
            covered_branches=self.covered_branches + other.covered_branches,
        )

    @property
    def percent(self) -> float:
        """Statements and branches together, as coverage.py's own report has it; 100 where there is nothing to run."""
        there = self.num_statements + self.num_branches
        return 100 * (self.covered_lines + self.covered_branches) / there if there else 100.0


class CoveredFile(BaseModel):
    """One file of coverage.py's JSON report."""

    summary: Counts


class CoverageReport(BaseModel):
    """coverage.py's JSON report, as far as it is used here: its files by their paths."""

    files: dict[str, CoveredFile]


def by_package(report: CoverageReport) -> dict[str, Counts]:
    """The counts of each of PACKAGES."""
    counts = dict.fromkeys(PACKAGES, Counts())
    for path, file in report.files.items():
        package = PurePath(path).parts[0]
        if package in counts:
            counts[package] += file.summary
    return counts


def table(counts: Mapping[str, Counts]) -> str:
    """A row for each package, and one for all of them."""
    lines = ["| package | statements | branches | covered |", "| --- | --- | --- | --- |"]
    rows = {**{f"`{package}`": count for package, count in counts.items()}, "all": sum(counts.values(), Counts())}
    for name, count in rows.items():
        lines.append(f"| {name} | {count.num_statements:,} | {count.num_branches:,} | {count.percent:.1f} % |")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m tests.coverage_report", description=__doc__)
    made.add_argument("report", type=Path, metavar="FILE.json", help="what pytest --cov-report=json wrote")
    made.add_argument("--page", type=Path, metavar="FILE", help="also put the table into this page")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, and put it into the page; 2 with a sentence where that cannot be done."""
    options = parser().parse_args(arguments)
    try:
        text = table(by_package(CoverageReport.model_validate_json(options.report.read_bytes())))
        print(text)
        if options.page is not None:
            rewrite_page(options.page, {BLOCK: text})
    except (OSError, ValidationError, PageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
