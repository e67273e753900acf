"""The work of each command, and the lines that it prints."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import faiss
from tqdm import tqdm

import model
from indexer.building import BuildReport, Progress, Request, build, find_replacement
from indexer.distributed import Machines, build_shards
from indexer.errors import BadInvocation, IndexerError
from indexer.place import default_index_path
from indexer.samples import write_samples
from indexer.store import IndexFolder
from indexer.upkeep import (
    IndexSummary,
    RemovalPlan,
    RemovalReport,
    compare,
    gallery_state,
    plan_removal,
    read_summary,
    remove,
    verify,
    watch,
)
from model.engine import set_threads
from model.terminal import as_called, printable

# The most threads that may be asked for; the service's settings have the same limit.
MOST_THREADS = 512


def index_of(options: argparse.Namespace) -> Path:
    """Returns the folder of the index that the options name, or the default one."""
    return options.index if options.index is not None else default_index_path()


def open_matcher(options: argparse.Namespace) -> model.Matcher:
    """Loads the checkpoint onto the device, and sets the number of threads that was asked for.

    Raises:
        BadInvocation: the number of threads makes no sense. ModelError: there is no such checkpoint or device.
    """
    threads = os.environ.get("SBIR_THREADS") or "auto"
    if threads != "auto":
        if not re.fullmatch("[0-9]{1,9}", threads) or not 1 <= int(threads) <= MOST_THREADS:
            raise BadInvocation(
                f"SBIR_THREADS is {threads[:64]!r}; set it to a number of CPU threads, from 1 to {MOST_THREADS}, or to "
                "auto."
            )
        set_threads(int(threads))
        faiss.omp_set_num_threads(int(threads))
    return model.load(_weights(options) or "default", options.device)


def _weights(options: argparse.Namespace) -> str | None:
    return options.weights or os.environ.get("SBIR_WEIGHTS") or None


def progress_of(options: argparse.Namespace) -> Progress:
    """Makes the object that shows how far a build is, in the way that the options name."""
    return Progress(bar=not options.quiet, file=options.progress_file)


def print_unless_quiet(options: argparse.Namespace, lines: Sequence[str]) -> None:
    if not options.quiet:
        print(*map(printable, lines), sep="\n", flush=True)


# The exit code of a build that had to leave out folders.
SOME_UNREAD = 3


# The person is asked before more than one in MUCH files leaves the index.
MUCH = 10


def ask(question: str, lines: Sequence[str] | None, alone: str) -> bool:
    """Asks the person a question, and returns True if the answer is yes.

    Args:
        lines: are printed before the question. alone: the error's message if nobody can be asked.

    Raises:
        BadInvocation: nobody can be asked.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise BadInvocation(alone)
    print(*map(printable, lines or ()), f"{printable(question)} [y/N] ", sep="\n", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


# Seconds between two looks at the gallery. Systems have a limit on how long a program can wait.
_LONGEST_INTERVAL = 7 * 24 * 3600


def run_build(options: argparse.Namespace) -> int:
    """build [FOLDER...]"""
    request = Request(
        folders=options.folders,
        clusters=options.clusters,
        embedder=options.embedder,
        tokens=options.tokens,
        recluster=options.recluster,
        checksum=options.checksum,
        batch=options.batch,
        shards=options.shards,
        leave=options.yes,
    )
    if (options.ray, options.shards, options.workers) != (None, None, None):
        return _build_shards(options, request)
    request = _confirmed(request, options)
    if not options.watch:
        return _build(options, request)
    if not 0 < options.interval <= _LONGEST_INTERVAL:
        raise BadInvocation(f"the interval must be a number of seconds above 0, at most {_LONGEST_INTERVAL} (a week).")
    index = index_of(options)
    request.check(index)
    matcher = open_matcher(options)
    # A service manager ends the program by SIGTERM, which here does the same as Ctrl-C: a build that is stopped
    # loses nothing.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _tell_build(options, build(index, request, matcher, progress_of(options)))
        watcher = _Watcher(options, index, matcher)
        watch(watcher.read_state, watcher.update, _pauses(options.interval))
    except KeyboardInterrupt:
        print_unless_quiet(options, ["stopped watching."])
    return 0


def _build_shards(options: argparse.Namespace, request: Request) -> int:
    """build [FOLDER...] --ray ADDRESS [--shards N]"""
    if options.ray is None:
        raise BadInvocation(
            "--shards and --workers are for a build on many machines; say with --ray where its Ray cluster is."
        )
    for name in ("watch", "moved", "checksum"):
        if getattr(options, name):
            raise BadInvocation(f"--{name} is for one index on one machine; leave it out, or build without --ray.")
    machines = Machines(options.ray, options.device, options.workers, _weights(options))
    return _tell_build(options, build_shards(index_of(options), request, machines, progress_of(options)))


def _tell_build(options: argparse.Namespace, report: BuildReport) -> int:
    """Print the report of a build, and on standard error which folders could not be read. Returns the exit code."""
    print_unless_quiet(options, build_lines(report))
    for line in unlisted_lines(report):
        print(printable(f"error: {line}"), file=sys.stderr, flush=True)
    return SOME_UNREAD if report.unlisted else 0


def _confirmed(request: Request, options: argparse.Namespace) -> Request:
    """Asks the person about folders that were renamed or leave the index. Returns the request with renamed folders.

    Raises:
        BadInvocation: nobody can be asked, or the person does not agree; or as in ``find_replacement``.
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
    return _build(options, Request(added=options.added, batch=options.batch))


def _build(options: argparse.Namespace, request: Request) -> int:
    index = index_of(options)
    # This comes before the network is loaded, so that simple mistakes are reported at once.
    request.check(index)
    progress = progress_of(options)
    matcher = open_matcher(options)
    return _tell_build(options, build(index, request, matcher, progress))


@dataclass
class _Watcher:
    """Holds the state of a watch, and does its work at each pause.

    Attributes:
        last_error: the error that was printed last, so that an error that stays is printed only once.
    """

    options: argparse.Namespace
    index: Path
    matcher: model.Matcher
    last_error: str | None = None

    def read_state(self) -> str:
        """Returns the state of the gallery; a fixed word while it cannot be read."""
        try:
            return gallery_state(self.index)
        except (IndexerError, OSError) as error:
            self._print_error(error)
            return "unreadable"

    def update(self) -> bool:
        """Bring the index up to date. Returns False if that failed."""
        try:
            # The request names no folders, because ``add`` and ``remove`` may have changed those of the index.
            request = Request(batch=self.options.batch)
            report = build(self.index, request, self.matcher, progress_of(self.options))
        except (IndexerError, OSError) as error:
            self._print_error(error)
            return False
        if report.unlisted:
            self._print_error(" ".join(unlisted_lines(report)))
        else:
            self.last_error = None
        if report.changed:
            done = f"{report.photos} photos, {report.encoded} encoded now, {report.gone} gone"
            told = f"generation {report.generation}: {done}, {len(report.bad)} not indexed"
            if report.drift is not None and report.drift.excessive:
                told += f"; {report.drift.describe()}"
            print_unless_quiet(self.options, [f"{time.strftime('%Y-%m-%d %H:%M:%S')} {told}"])
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
    index = index_of(options)
    plan = plan_removal(options.targets, index, ids=options.ids)
    if options.dry_run:
        print(*map(printable, plan_lines(plan)), sep="\n")
        print(f"nothing has changed; this would remove {plan.files} of {plan.of} files.")
        return 0
    if plan.files * MUCH > plan.of and not options.yes:
        sentence = f"this removes {plan.files} of {plan.of} files, more than a tenth of the gallery"
        alone = f"{sentence}; look at what that is with --dry-run, and repeat it with --yes."
        if not ask(f"{sentence}. Go on?", plan_lines(plan), alone):
            raise BadInvocation("nothing was removed.")
    report = remove(options.targets, index, ids=options.ids)
    removed = f"{_count(report.files, 'file')}; on disk as before, and out of the index until added again"
    lines = [_line("removed", removed), _line("photos", f"{report.photos}")]
    print_unless_quiet(options, [*plan_lines(plan), *lines, _state_line(report)])
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
    """verify [--index-only]"""
    index = index_of(options)
    problems = verify(index)
    _tell(options, problems, index)
    if problems or options.index_only:
        return 1 if problems else 0
    return _compare(options, index)


def _tell(options: argparse.Namespace, problems: Sequence[str], index: Path) -> None:
    for problem in problems or [f"{IndexFolder(index).path} is sound."]:
        print(printable(as_called(problem, options.prog)))


def _compare(options: argparse.Namespace, index: Path) -> int:
    """Print which files are no longer what was indexed. Returns the exit code."""
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


def run_samples(options: argparse.Namespace) -> int:
    """samples DIR"""
    samples = write_samples(options.folder)
    drawn = f"{samples.photos}: {samples.drawn} drawn of {samples.things} things"
    print(printable(_line("photos", f"{drawn}, and {samples.copied} photos from scikit-learn")))
    print(printable(_line("sketches", f"{samples.sketches}: {samples.sketched}")))
    return 0


def build_lines(report: BuildReport) -> list[str]:
    """Describe a build: count the photos, and name the files that were not indexed, and the shards if there are any."""
    lines = [_line("was damaged", problem) for problem in report.damaged]
    lines += [_line("not indexed", f"{bad.path}: {bad.reason}") for bad in report.bad]
    duplicates = f" ({report.files} files, {report.duplicates} of them duplicates)" if report.duplicates else ""
    lines += [_line("skipped", told) for told in report.skipped.describe()]
    lines.append(_line("photos", f"{report.photos}{duplicates}"))
    lines.append(_line("encoded now", f"{report.encoded}"))
    if report.gone:
        lines.append(_line("gone", f"{report.gone}"))
    if report.bad:
        lines.append(_line("bad", f"{len(report.bad)}, named above"))
    lines.append(_line("clusters", f"{report.clusters}, by {report.embedder}"))
    if report.drift is not None and report.drift.excessive:
        lines.append(_line("drift", report.drift.describe()))
    for shard in report.shards:
        told = f"{_count(shard.photos, 'photo')}, {_count(shard.clusters, 'cluster')}, {shard.generation}"
        lines.append(_line(shard.folder, told))
    if report.shards:
        state = "now live" if report.changed else "nothing has changed; they stay as they are"
        lines.append(_line("time", f"{report.seconds:.1f} s, {_count(report.workers, 'worker')}"))
        return [*lines, _line("shards", f"{len(report.shards)} in {report.index}, {state}")]
    lines.append(_line("time", f"{report.seconds:.1f} s"))
    return [*lines, _state_line(report, f"{report.index}, ")]


def unlisted_lines(report: BuildReport) -> list[str]:
    """Names the folders that a build could not read."""
    return [f"{folder.path}: {folder.reason}; what was known of it stays." for folder in report.unlisted]


def plan_lines(plan: RemovalPlan) -> list[str]:
    """Name the files and folders that leave the index."""
    return [_line("leaves", f"{path} ({_count(files, 'file')})") for path, files in plan.leaving]


def summary_lines(summary: IndexSummary) -> list[str]:
    manifest, counts = summary.manifest, summary.manifest.counts
    kept = "one vector" if manifest.tokens == 1 else f"{manifest.tokens} tokens"
    lines = [
        _line("index", f"{summary.path}, generation {summary.generation}, format {manifest.format_version}"),
        _line("built", f"{manifest.created:%Y-%m-%d %H:%M:%S} UTC by version {manifest.software}"),
        _line("photos", f"{counts.photos} ({counts.files} files, {counts.duplicates} of them duplicates)"),
        _line("bad files", f"{counts.bad}"),
        _line("clusters", f"{counts.clusters}, by {manifest.embedder.description}"),
        _line("drift", summary.drift.describe()),
        _line("network", f"{manifest.network}, {kept} of {manifest.width} numbers"),
        _line("photo side", manifest.photo_sha256),
        _line(
            "on disk",
            f"{summary.bytes_on_disk / 2**20:.1f} MiB in {_count(len(manifest.segments), 'segment')}, "
            f"{summary.bytes_on_disk / 2**10 / counts.photos:.1f} KiB a photo",
        ),
    ]
    lines += [_line("root", f"{root.name}: {root.path}") for root in manifest.roots]
    lines += [_line("removed", path) for path in summary.removed]
    lines += [_line("not indexed", f"{bad.path}: {bad.reason}") for bad in summary.bad]
    return lines


def _state_line(report: BuildReport | RemovalReport, index: str = "") -> str:
    state = "now live" if report.changed else "nothing has changed; it stays as it is"
    return _line("index", f"{index}generation {report.generation}, {state}")


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _line(name: str, value: str) -> str:
    return f"{name + ':':<13}{value}"


COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "build": run_build,
    "add": run_add,
    "remove": run_remove,
    "info": run_info,
    "verify": run_verify,
    "samples": run_samples,
}


def run_command(options: argparse.Namespace) -> int:
    """Run the command that the options name. Returns its exit code."""
    # Pillow's warnings about a picture are not printed: the report says what is wrong with it.
    warnings.filterwarnings("ignore", module=r"PIL\b")
    return COMMANDS[options.command](options)
