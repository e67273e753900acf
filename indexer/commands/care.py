"""Commands that look after an index: compact, info, verify."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from indexer.commands.options import index_of, open_matcher, print_unless_quiet, progress_of
from indexer.commands.tables import build_lines, compact_lines, summary_lines
from indexer.commands.telling import SOME_UNREAD, tell_unlisted
from indexer.store import IndexFolder
from indexer.upkeep import compact, compare, read_summary, repair, verify
from model.terminal import as_called, printable


def run_compact(options: argparse.Namespace) -> int:
    """compact"""
    print_unless_quiet(options, compact_lines(compact(index_of(options))))
    return 0


def run_info(options: argparse.Namespace) -> int:
    """info [--json]"""
    summary = read_summary(index_of(options))
    if options.json:
        print(summary.model_dump_json(indent=1))
    else:
        print(*map(printable, summary_lines(summary)), sep="\n")
    return 0


def run_verify(options: argparse.Namespace) -> int:
    """verify [--repair | --index-only]"""
    if options.repair:
        return _repair(options)
    index = index_of(options)
    problems = verify(index)
    _tell(options, problems, index)
    if problems or options.index_only:
        return 1 if problems else 0
    return _compare(options, index)


def _repair(options: argparse.Namespace) -> int:
    index = index_of(options)
    unread = 0
    report = repair(index, open_matcher(options), progress=progress_of(options), batch=options.batch)
    print_unless_quiet(options, [f"was damaged: {problem}" for problem in report.problems])
    if report.build is not None:
        print_unless_quiet(options, build_lines(report.build))
        unread = tell_unlisted(report.build)
    _tell(options, report.remaining, index)
    return 1 if report.remaining else unread


def _tell(options: argparse.Namespace, problems: Sequence[str], index: Path) -> None:
    for problem in problems or [f"{IndexFolder(index).path} is sound."]:
        print(printable(as_called(problem, options.prog)))


def _compare(options: argparse.Namespace, index: Path) -> int:
    """Say which files are no longer what was indexed. Returns the exit code."""
    with tqdm(unit=" photos", leave=False, disable=True if options.quiet else None) as bar:

        def seen(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        found = compare(index, seen)
    for problem in found.problems:
        print(printable(problem))
    for folder in found.absent:
        print(printable(f"error: {folder}"), file=sys.stderr, flush=True)
    if found.problems:
        print(f"{len(found.problems)} of {found.files} files are not what was indexed.")
        print(as_called("To bring the index up to date, run `sketch-search index build --checksum`.", options.prog))
        return 1
    if found.absent:
        return SOME_UNREAD
    print(f"{found.files} files are what was indexed.")
    return 0
