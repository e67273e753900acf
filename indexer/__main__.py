"""python -m indexer: build an index of photos, look into it, look after it."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import faiss
import torch

import model
from indexer.building import DEFAULT_BATCH, BuildReport, Progress, Request, run
from indexer.errors import BadInvocation, IndexerError
from indexer.samples import write_samples
from indexer.store import IndexFolder, default_index_path, software_version
from indexer.tables import build_lines, compact_lines, info_lines, remove_lines, sample_lines, update_line
from indexer.upkeep import compact, look, read_info, remove, repair, verify, watch
from model.checkpoint import default_checkpoint

_EXAMPLES = """examples:
  {prog} build ~/Pictures    # once, and again to update
  {prog} build --watch       # stay, and follow changes
  {prog} remove "holiday/blurred.jpg"
  {prog} info
"""


def main(arguments: Sequence[str] | None = None, prog: str = "python -m indexer") -> int:
    """Run one command.

    Args:
        arguments: the command line without the program's name; None for this process's.
        prog: what the help calls the program.

    Returns:
        the exit code. 0: done; 1: ``verify`` found problems; 2: it could not be done, and a sentence says why.
    """
    options = parser(prog).parse_args(arguments)
    # What Pillow grumbles about a picture says nothing that the report does not say better.
    warnings.filterwarnings("ignore", module=r"PIL\b")
    try:
        return int(options.run(options))
    except (IndexerError, model.ModelError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(
            f"error: {place}{error.strerror or error}; check its name and that it may be read and written.",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("stopped; run the same again to go on from here.", file=sys.stderr)
        return 130


def parser(prog: str = "python -m indexer") -> argparse.ArgumentParser:
    """The command line of a program that calls itself ``prog``."""
    top = argparse.ArgumentParser(
        prog=prog,
        description="Build an index of photos, look into it, and look after it.",
        epilog=_EXAMPLES.format(prog=prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"sketch-search {software_version()}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("build", help="index folders of photos, or bring their index up to date")
    command.add_argument(
        "folders", nargs="*", type=Path, metavar="FOLDER", help="all folders of the gallery; none: those it has"
    )
    command.add_argument("--clusters", type=int, metavar="N", help="default: about the square root of the photos")
    command.add_argument("--recluster", action="store_true", help="make the clusters anew, of all photos there are")
    command.add_argument(
        "--embedder",
        default="auto",
        metavar="auto|ret|clip[:TAG|FILE]",
        help="what photos are clustered by: the checkpoint's [Ret], or CLIP (clip:MODEL/PRETRAINED, clip:MODEL@FILE, "
        "clip:FOLDER); auto takes CLIP only where its weights are on this disk",
    )
    command.add_argument("--watch", action="store_true", help="stay, and bring the index up to date as photos change")
    command.add_argument(
        "--interval", type=float, default=10.0, metavar="SECONDS", help="between two looks at the photos (default: 10)"
    )
    _add_computing(command)
    command.set_defaults(run=run_build, added=())

    command = commands.add_parser("add", help="add folders to the gallery; show again what was removed")
    command.add_argument("added", nargs="+", type=Path, metavar="PATH", help="a folder; or what was removed, or around")
    _add_computing(command)
    command.set_defaults(run=run_build, folders=(), clusters=None, recluster=False, embedder="auto", watch=False)

    command = commands.add_parser("remove", help="take photos out of the index; their files stay")
    command.add_argument(
        "targets", nargs="+", metavar="PHOTO", help="an id, or the path of a file or folder, on disk or as results show"
    )
    _add_index(command)
    command.add_argument("--quiet", action="store_true", help="errors only")
    command.set_defaults(run=run_remove)

    command = commands.add_parser("compact", help="merge what updates have left, and free the space of removed photos")
    _add_index(command)
    command.add_argument("--quiet", action="store_true", help="errors only")
    command.set_defaults(run=run_compact)

    command = commands.add_parser("info", help="say what an index holds")
    _add_index(command)
    command.add_argument("--json", action="store_true", help="for machines")
    command.set_defaults(run=run_info)

    command = commands.add_parser("verify", help="check every byte of an index")
    command.add_argument("--repair", action="store_true", help="make anew from the photos what is damaged")
    _add_computing(command)
    command.set_defaults(run=run_verify)

    command = commands.add_parser("samples", help="draw a sample gallery, and sketches to search it with")
    command.add_argument("folder", type=Path, metavar="DIR", help="gets the folders photos and sketches")
    command.set_defaults(run=run_samples)
    return top


def _add_index(command: argparse.ArgumentParser) -> None:
    command.add_argument("--index", type=Path, metavar="DIR", help="default: SBIR_INDEX, else your data folder")


def _add_computing(command: argparse.ArgumentParser) -> None:
    _add_index(command)
    command.add_argument("--weights", metavar="FILE", help="checkpoint (default: SBIR_WEIGHTS, else the embedded one)")
    command.add_argument(
        "--device",
        default=_told("SBIR_DEVICE"),
        help="auto, cpu or cuda (default: SBIR_DEVICE; SBIR_THREADS says how many CPU threads compute)",
    )
    command.add_argument("--batch", type=int, default=DEFAULT_BATCH, metavar="N", help="files between two commits")
    command.add_argument("--progress-file", type=Path, metavar="FILE", help="JSON, kept up to date while building")
    command.add_argument("--quiet", action="store_true", help="no bar and no report; errors only")


def _told(name: str) -> str:
    """An environment variable; one that is empty is unset, and so is one that says "auto"."""
    return os.environ.get(name) or "auto"


def _index(options: argparse.Namespace) -> Path:
    return options.index if options.index is not None else default_index_path()


def _matcher(options: argparse.Namespace) -> model.Matcher:
    told = _told("SBIR_THREADS")
    if told != "auto":
        if not told.isdecimal() or int(told) < 1:
            raise BadInvocation(f"SBIR_THREADS is {told!r}; set it to a number of CPU threads, at least 1, or to auto.")
        torch.set_num_threads(int(told))
        faiss.omp_set_num_threads(int(told))
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    # Photos are only encoded here, which is always done in float32; to look for a faster precision would take time.
    weights = options.weights or os.environ.get("SBIR_WEIGHTS") or None
    return model.load(default_checkpoint(weights), device, torch.float32)


def _progress(options: argparse.Namespace) -> Progress:
    return Progress(bar=not options.quiet, file=options.progress_file)


def _print(options: argparse.Namespace, lines: Sequence[str]) -> None:
    if not options.quiet:
        print("\n".join(lines), flush=True)


def run_build(options: argparse.Namespace) -> int:
    """build [FOLDER...], add PATH..."""
    index = _index(options)
    request = Request(
        tuple(options.folders),
        tuple(options.added),
        options.clusters,
        options.embedder,
        options.recluster,
        options.batch,
    )
    # Before the network is loaded, so that a slip of the pen is answered at once.
    request.check(index)
    if options.watch and not 0 < options.interval < float("inf"):
        raise BadInvocation("the interval must be a number of seconds above 0.")
    matcher = _matcher(options)
    if not options.watch:
        _print(options, build_lines(run(index, request, matcher, _progress(options))))
        return 0
    # Ended by a service manager as by Ctrl-C: a build that is stopped loses nothing.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _print(options, build_lines(run(index, request, matcher, _progress(options))))
        _watch(options, index, matcher)
    except KeyboardInterrupt:
        _print(options, ["stopped watching."])
    return 0


def _watch(options: argparse.Namespace, index: Path, matcher: model.Matcher) -> None:
    told = ""

    def failed(error: IndexerError | OSError) -> None:
        nonlocal told
        if str(error) != told:
            print(f"error: {error}", file=sys.stderr, flush=True)
        told = str(error)

    def seen() -> str:
        try:
            return look(index)
        except (IndexerError, OSError) as error:
            failed(error)
            return "unreadable"

    def update() -> bool:
        nonlocal told
        try:
            # The folders that the index has by now: add and remove may have been at work.
            report: BuildReport = run(index, Request(batch=options.batch), matcher, _progress(options))
        except (IndexerError, OSError) as error:
            failed(error)
            return False
        told = ""
        if report.changed:
            _print(options, [f"{time.strftime('%Y-%m-%d %H:%M:%S')} {update_line(report)}"])
        return True

    watch(seen, update, _pauses(options.interval))


def _pauses(seconds: float) -> Iterator[None]:
    while True:
        time.sleep(seconds)
        yield


def run_remove(options: argparse.Namespace) -> int:
    """remove PHOTO..."""
    _print(options, remove_lines(remove(options.targets, _index(options))))
    return 0


def run_compact(options: argparse.Namespace) -> int:
    """compact"""
    _print(options, compact_lines(compact(_index(options))))
    return 0


def run_info(options: argparse.Namespace) -> int:
    """info [--json]"""
    info = read_info(_index(options))
    print(info.model_dump_json(indent=1) if options.json else "\n".join(info_lines(info)))
    return 0


def run_verify(options: argparse.Namespace) -> int:
    """verify [--repair]"""
    index = _index(options)
    folder = IndexFolder(index)
    problems: Sequence[str]
    if options.repair:
        report = repair(index, _matcher(options), progress=_progress(options), batch=options.batch)
        _print(options, [f"was damaged: {problem}" for problem in report.problems])
        if report.build is not None:
            _print(options, build_lines(report.build))
        problems = report.remaining
    else:
        problems = verify(index)
    for problem in problems:
        print(problem)
    if not problems:
        print(f"{folder.path} is sound.")
    return 1 if problems else 0


def run_samples(options: argparse.Namespace) -> int:
    """samples DIR"""
    print("\n".join(sample_lines(write_samples(options.folder))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
