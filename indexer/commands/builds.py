"""Commands that build: build, add."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import model
from indexer.building import Request, find_replacement, run
from indexer.commands.asking import MUCH, ask
from indexer.commands.options import index_of, open_matcher, print_unless_quiet, progress_of
from indexer.commands.sharded import run_sharded_build
from indexer.commands.tables import build_lines, unlisted_lines, update_line
from indexer.commands.telling import tell_unlisted
from indexer.errors import BadInvocation, IndexerError
from indexer.upkeep import gallery_state, watch
from model.terminal import printable

# Seconds. No system can wait for any number of them.
_LONGEST_INTERVAL = 7 * 24 * 3600


def run_build(options: argparse.Namespace) -> int:
    """build [FOLDER...]"""
    if (options.ray, options.shards, options.workers) != (None, None, None):
        return run_sharded_build(options)
    request = Request(
        folders=tuple(options.folders),
        clusters=options.clusters,
        embedder=options.embedder,
        recluster=options.recluster,
        checksum=options.checksum,
        batch=options.batch,
    )
    request = _confirmed(request, options)
    if not options.watch:
        return _build(options, request)
    if not 0 < options.interval <= _LONGEST_INTERVAL:
        raise BadInvocation(f"the interval must be a number of seconds above 0, at most {_LONGEST_INTERVAL} (a week).")
    index = index_of(options)
    request.check(index)
    matcher = open_matcher(options)
    # A service manager ends the program by SIGTERM. That is then the same as Ctrl-C: a build that is stopped loses
    # nothing.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        report = run(index, request, matcher, progress_of(options))
        print_unless_quiet(options, build_lines(report))
        tell_unlisted(report)
        watcher = _Watcher(options, index, matcher)
        watch(watcher.read_state, watcher.update, _pauses(options.interval))
    except KeyboardInterrupt:
        print_unless_quiet(options, ["stopped watching."])
    return 0


def _confirmed(request: Request, options: argparse.Namespace) -> Request:
    """The request, once the person has agreed to what leaves the index by it; with folders that were renamed.

    Raises:
        BadInvocation: nobody can be asked, or does not agree; or as ``find_replacement`` does.
    """
    if not request.folders:
        return request
    index = index_of(options)
    found = find_replacement(request, index)
    for move in found.moves:
        sentence = f"{move.old} is gone, and {move.new} has {move.files} of its {move.of} files"
        if options.moved:
            agreed = True
        elif options.yes:
            agreed = False
        else:
            agreed = ask(
                f"{sentence}. Was it renamed, and do its photos keep their ids?",
                None,
                f"{sentence}; "
                "repeat it with --moved if it was renamed, so that its photos keep their ids, or with --yes if not.",
            )
        if agreed:
            request = replace(request, moved=(*request.moved, (move.old, move.new)))
    if request.moved:
        found = find_replacement(request, index)
    if not found.leaving:
        return request
    leaving = [f"leaves:      {folder} ({files} files)" for folder, files in found.leaving]
    if found.files * MUCH > found.of and not options.yes:
        sentence = f"this takes {found.files} of {found.of} files out of the index, because their folders are not named"
        advice = "name these folders, too; or add to them by `sketch-search index add`; or repeat it with --yes"
        folders = ", ".join(str(folder) for folder, _ in found.leaving)
        if not ask(f"{sentence}. Go on?", leaving, f"{sentence}: {folders}; {advice}."):
            raise BadInvocation("nothing has changed.")
    else:
        print_unless_quiet(options, leaving)
    return request


def run_add(options: argparse.Namespace) -> int:
    """add PATH..."""
    return _build(options, Request(added=tuple(options.added), batch=options.batch))


def _build(options: argparse.Namespace, request: Request) -> int:
    index = index_of(options)
    # Before the network is loaded, so that simple mistakes are answered at once.
    request.check(index)
    progress = progress_of(options)
    matcher = open_matcher(options)
    report = run(index, request, matcher, progress)
    print_unless_quiet(options, build_lines(report))
    return tell_unlisted(report)


@dataclass
class _Watcher:
    """What watching does at each pause.

    Attributes:
        last_error: the error that was printed last, so that one that stays is printed only once.
    """

    options: argparse.Namespace
    index: Path
    matcher: model.Matcher
    last_error: str | None = None

    def read_state(self) -> str:
        """The state of the gallery; a fixed word while it cannot be read."""
        try:
            return gallery_state(self.index)
        except (IndexerError, OSError) as error:
            self._print_error(error)
            return "unreadable"

    def update(self) -> bool:
        """Bring the index up to date; False where that failed."""
        try:
            # Without folders, for those that the index has by now: ``add`` and ``remove`` may have changed them.
            request = Request(batch=self.options.batch)
            report = run(self.index, request, self.matcher, progress_of(self.options))
        except (IndexerError, OSError) as error:
            self._print_error(error)
            return False
        if report.unlisted:
            self._print_error(" ".join(unlisted_lines(report)))
        else:
            self.last_error = None
        if report.changed:
            print_unless_quiet(self.options, [f"{time.strftime('%Y-%m-%d %H:%M:%S')} {update_line(report)}"])
        return True

    def _print_error(self, error: IndexerError | OSError | str) -> None:
        if str(error) != self.last_error:
            print(printable(f"error: {error}"), file=sys.stderr, flush=True)
        self.last_error = str(error)


def _pauses(seconds: float) -> Iterator[None]:
    while True:
        time.sleep(seconds)
        yield
