"""python -m indexer: build an index of photos, look into it, look after it."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import torch

import model
from indexer.building import DEFAULT_BATCH, BuildReport, Progress, Request, run
from indexer.errors import BadInvocation, IndexerError
from indexer.samples import write_samples
from indexer.store import IndexFolder, default_index_path, software_version
from indexer.tables import (
    build_lines,
    compact_lines,
    plan_lines,
    remove_lines,
    sample_lines,
    summary_lines,
    unlisted_lines,
    update_line,
)
from indexer.upkeep import (
    RemovalPlan,
    compact,
    gallery_state,
    plan_removal,
    read_summary,
    remove,
    repair,
    verify,
    watch,
)
from model.checkpoint import default_checkpoint
from model.terminal import Parser, a_path, printable, run_program

# As in the service's settings.
MOST_THREADS = 512
_EXAMPLES = """examples:
  {prog} build ~/Pictures    # once, and again to update
  {prog} build --watch       # stay, and follow changes
  {prog} remove "holiday/blurred.jpg"
  {prog} info
"""
# Seconds. No system can wait for any number of them.
_LONGEST_INTERVAL = 7 * 24 * 3600
# The exit code of a build that had to leave out folders.
_SOME_UNREAD = 3
# A removal of more than one in so many files is asked about.
_MUCH = 10


def main(arguments: Sequence[str] | None = None, prog: str = "python -m indexer") -> int:
    """Run one command.

    Args:
        arguments: the command line without the program's name; None for this process's.
        prog: what the help calls the program.

    Returns:
        the exit code. 0: done; 1: ``verify`` found problems; 3: done, but some folders could not be read; else what
        ``run_program`` makes of an error.
    """

    def work() -> int:
        options = parser(prog).parse_args(arguments)
        # Pillow's warnings about a picture are not printed: the report says what is wrong with it.
        warnings.filterwarnings("ignore", module=r"PIL\b")
        return int(options.run(options))

    return run_program(work, stopped="stopped; run the same again to go on from here.")


def parser(prog: str = "python -m indexer") -> argparse.ArgumentParser:
    """The command line of a program that calls itself ``prog``."""
    top = Parser(
        prog=prog,
        description="Build an index of photos, look into it, and look after it.",
        epilog=_EXAMPLES.format(prog=prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"sketch-search {software_version()}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("build", help="index folders of photos, or bring their index up to date")
    command.add_argument(
        "folders",
        nargs="*",
        type=a_path,
        metavar="FOLDER",
        help="all folders of photos; none: those that the index has",
    )
    command.add_argument(
        "--clusters", type=int, metavar="N", help="default: about the square root of the number of photos"
    )
    command.add_argument("--recluster", action="store_true", help="make the clusters anew, from all photos")
    command.add_argument(
        "--checksum",
        action="store_true",
        help="read every file: finds changes that left size and times as they were",
    )
    command.add_argument(
        "--embedder",
        default="auto",
        metavar="auto|ret|clip[:TAG|FILE]",
        help="what photos are clustered by: the checkpoint's [Ret], or CLIP (clip:MODEL/PRETRAINED, clip:MODEL@FILE or "
        "clip:FOLDER); auto: CLIP where its weights are on this disk, else [Ret]",
    )
    command.add_argument("--watch", action="store_true", help="stay, and bring the index up to date when photos change")
    command.add_argument(
        "--interval",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="with --watch: time between two looks at the photos (default: 10)",
    )
    _add_computing(command)
    command.set_defaults(run=run_build)

    command = commands.add_parser("add", help="add folders to the gallery, or show again what was removed")
    command.add_argument(
        "added",
        nargs="+",
        type=a_path,
        metavar="PATH",
        help="a folder to add, or a removed file or folder to show again",
    )
    _add_computing(command)
    command.set_defaults(run=run_add)

    command = commands.add_parser("remove", help="take photos out of the index; their files stay")
    command.add_argument(
        "targets", nargs="*", metavar="PATH", help="a file or folder of the gallery, on disk or as results show it"
    )
    command.add_argument(
        "--id",
        type=_photo_id,
        action="append",
        default=[],
        dest="ids",
        metavar="N",
        help="a photo by its id, repeatable",
    )
    command.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    command.add_argument("--yes", action="store_true", help="do not ask where more than a tenth of the files leaves")
    _add_index(command)
    command.add_argument("--quiet", action="store_true", help="errors only")
    command.set_defaults(run=run_remove)

    command = commands.add_parser("compact", help="merge segments, and free the space of removed photos")
    _add_index(command)
    command.add_argument("--quiet", action="store_true", help="errors only")
    command.set_defaults(run=run_compact)

    command = commands.add_parser("info", help="say what an index holds")
    _add_index(command)
    command.add_argument("--json", action="store_true", help="for machines")
    command.set_defaults(run=run_info)

    command = commands.add_parser("verify", help="check every byte of an index")
    command.add_argument("--repair", action="store_true", help="make what is damaged anew from the photos")
    _add_computing(command)
    command.set_defaults(run=run_verify)

    command = commands.add_parser("samples", help="draw a sample gallery, and sketches to search it with")
    command.add_argument("folder", type=a_path, metavar="DIR", help="gets the folders photos and sketches")
    command.set_defaults(run=run_samples)
    return top


def _add_index(command: argparse.ArgumentParser) -> None:
    command.add_argument("--index", type=a_path, metavar="DIR", help="default: SBIR_INDEX, else your data folder")


def _add_computing(command: argparse.ArgumentParser) -> None:
    _add_index(command)
    command.add_argument("--weights", metavar="FILE", help="checkpoint (default: SBIR_WEIGHTS, else the embedded one)")
    command.add_argument(
        "--device",
        default=_environment("SBIR_DEVICE"),
        help="auto, cpu or cuda (default: SBIR_DEVICE; SBIR_THREADS says how many CPU threads compute)",
    )
    command.add_argument("--batch", type=int, default=DEFAULT_BATCH, metavar="N", help="files read between two commits")
    command.add_argument("--progress-file", type=a_path, metavar="FILE", help="JSON, kept up to date while building")
    command.add_argument("--quiet", action="store_true", help="no bar and no report; errors only")


def _environment(name: str) -> str:
    """The value of an environment variable; "auto" where it is unset or empty."""
    return os.environ.get(name) or "auto"


def _index(options: argparse.Namespace) -> Path:
    return options.index if options.index is not None else default_index_path()


def _matcher(options: argparse.Namespace) -> model.Matcher:
    threads = _environment("SBIR_THREADS")
    if threads != "auto":
        if not re.fullmatch("[0-9]{1,9}", threads) or not 1 <= int(threads) <= MOST_THREADS:
            raise BadInvocation(
                f"SBIR_THREADS is {threads[:64]!r}; set it to a number of CPU threads, from 1 to {MOST_THREADS}, or to "
                "auto."
            )
        torch.set_num_threads(int(threads))
        faiss.omp_set_num_threads(int(threads))
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    # The indexer only encodes photos, which is always done in float32. Looking for a faster precision would take time.
    weights = options.weights or os.environ.get("SBIR_WEIGHTS") or None
    return model.load(default_checkpoint(weights), device, torch.float32)


def _progress(options: argparse.Namespace) -> Progress:
    return Progress(bar=not options.quiet, file=options.progress_file)


def _print(options: argparse.Namespace, lines: Sequence[str]) -> None:
    if not options.quiet:
        print(*map(printable, lines), sep="\n", flush=True)


def run_build(options: argparse.Namespace) -> int:
    """build [FOLDER...]"""
    request = Request(
        folders=tuple(options.folders),
        clusters=options.clusters,
        embedder=options.embedder,
        recluster=options.recluster,
        checksum=options.checksum,
        batch=options.batch,
    )
    if not options.watch:
        return _build(options, request)
    if not 0 < options.interval <= _LONGEST_INTERVAL:
        raise BadInvocation(f"the interval must be a number of seconds above 0, at most {_LONGEST_INTERVAL} (a week).")
    index = _index(options)
    request.check(index)
    matcher = _matcher(options)
    # A service manager ends the program by SIGTERM. That is then the same as Ctrl-C: a build that is stopped loses
    # nothing.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        report = run(index, request, matcher, _progress(options))
        _print(options, build_lines(report))
        _tell_unlisted(report)
        watcher = _Watcher(options, index, matcher)
        watch(watcher.read_state, watcher.update, _pauses(options.interval))
    except KeyboardInterrupt:
        _print(options, ["stopped watching."])
    return 0


def run_add(options: argparse.Namespace) -> int:
    """add PATH..."""
    return _build(options, Request(added=tuple(options.added), batch=options.batch))


def _build(options: argparse.Namespace, request: Request) -> int:
    index = _index(options)
    # Before the network is loaded, so that simple mistakes are answered at once.
    request.check(index)
    progress = _progress(options)
    matcher = _matcher(options)
    report = run(index, request, matcher, progress)
    _print(options, build_lines(report))
    return _tell_unlisted(report)


def _tell_unlisted(report: BuildReport) -> int:
    """Say on standard error which folders could not be read. Returns the exit code."""
    for line in unlisted_lines(report):
        print(printable(f"error: {line}"), file=sys.stderr, flush=True)
    return _SOME_UNREAD if report.unlisted else 0


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
            report = run(self.index, request, self.matcher, _progress(self.options))
        except (IndexerError, OSError) as error:
            self._print_error(error)
            return False
        if report.unlisted:
            self._print_error(" ".join(unlisted_lines(report)))
        else:
            self.last_error = None
        if report.changed:
            _print(self.options, [f"{time.strftime('%Y-%m-%d %H:%M:%S')} {update_line(report)}"])
        return True

    def _print_error(self, error: IndexerError | OSError | str) -> None:
        if str(error) != self.last_error:
            print(printable(f"error: {error}"), file=sys.stderr, flush=True)
        self.last_error = str(error)


def _pauses(seconds: float) -> Iterator[None]:
    while True:
        time.sleep(seconds)
        yield


def run_remove(options: argparse.Namespace) -> int:
    """remove [PATH...] [--id N]... [--dry-run] [--yes]"""
    if not options.targets and not options.ids:
        raise BadInvocation("name what to remove: the path of a file or folder, or a photo by --id N.")
    index = _index(options)
    plan = plan_removal(options.targets, index, ids=options.ids)
    if options.dry_run:
        print(*map(printable, plan_lines(plan)), sep="\n")
        print(f"nothing has changed; this would remove {plan.files} of {plan.of} files.")
        return 0
    if plan.files * _MUCH > plan.of and not options.yes:
        _ask(plan)
    _print(options, remove_lines(plan, remove(options.targets, index, ids=options.ids)))
    return 0


def _ask(plan: RemovalPlan) -> None:
    """Have the person agree. Raises BadInvocation where nobody can be asked, or does not agree."""
    sentence = f"this removes {plan.files} of {plan.of} files, more than a tenth of the gallery"
    if sys.stdin is None or not sys.stdin.isatty():
        raise BadInvocation(f"{sentence}; look at what that is with --dry-run, and repeat it with --yes.")
    print(
        *map(printable, plan_lines(plan)), f"{sentence}. Go on? [y/N] ", sep="\n", end="", file=sys.stderr, flush=True
    )
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise BadInvocation("nothing was removed.")


def _photo_id(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise argparse.ArgumentTypeError(f"an id is a number such as 17, not {text!r}")
    return int(text)


def run_compact(options: argparse.Namespace) -> int:
    """compact"""
    _print(options, compact_lines(compact(_index(options))))
    return 0


def run_info(options: argparse.Namespace) -> int:
    """info [--json]"""
    summary = read_summary(_index(options))
    if options.json:
        print(summary.model_dump_json(indent=1))
    else:
        print(*map(printable, summary_lines(summary)), sep="\n")
    return 0


def run_verify(options: argparse.Namespace) -> int:
    """verify [--repair]"""
    index = _index(options)
    folder = IndexFolder(index)
    problems: Sequence[str]
    unread = 0
    if options.repair:
        report = repair(index, _matcher(options), progress=_progress(options), batch=options.batch)
        _print(options, [f"was damaged: {problem}" for problem in report.problems])
        if report.build is not None:
            _print(options, build_lines(report.build))
            unread = _tell_unlisted(report.build)
        problems = report.remaining
    else:
        problems = verify(index)
    for problem in problems:
        print(printable(problem))
    if not problems:
        print(printable(f"{folder.path} is sound."))
    return 1 if problems else unread


def run_samples(options: argparse.Namespace) -> int:
    """samples DIR"""
    print(*map(printable, sample_lines(write_samples(options.folder))), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
