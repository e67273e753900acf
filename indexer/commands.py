"""The commands of `sketch-search index`, also run by `python -m indexer`. They import their code when they run."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from sketch_search.indexer.errors import BadInvocation, IndexerError
from sketch_search.model.command_line import CommandGroup, a_folder, a_path, examples, inherit, option, run
from sketch_search.model.terminal import plural, printable, printable_json

if TYPE_CHECKING:
    from sketch_search.indexer.building.builder import BuildReport
    from sketch_search.indexer.building.plan import BuildRequest
    from sketch_search.indexer.building.staging import Progress
    from sketch_search.model import Matcher
    from sketch_search.model.limits import System


def _index_path(_: click.Context, parameter: click.Parameter, named: Path | None) -> Path:
    from sketch_search.indexer.store.location import default_index_path

    return default_index_path() if named is None else named


INDEX = option(
    "--index DIR",
    "Default: SKETCH_SEARCH_INDEX, else your data folder.",
    a_path,
    default=inherit("index"),
    callback=_index_path,
)
QUIET = option("--quiet", "Print errors only: no progress bar and no report.")


def show(lines: Sequence[str], quiet: bool = False) -> None:
    if lines and not quiet:
        print(*map(printable, lines), sep="\n", flush=True)


def line(name: str, value: str) -> str:
    return f"{name + ':':<13}{value}"


def _photo_id(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise click.BadParameter(f"an id is a number such as 17, not {text!r}")
    return int(text)


@click.command()
@click.argument("targets", nargs=-1, metavar="[PATH]...")
@option("--id N", "A photo by its id, repeatable.", _photo_id, name="ids", multiple=True)
@option("--from FILE", "Remove what another index's `index info --json` lists as removed.", a_path, name="summary")
@option("--dry-run", "Only report what would be removed.")
@option("--yes", "Remove even more than a tenth of the files.")
@INDEX
@QUIET
def remove(
    targets: tuple[str, ...],
    ids: tuple[int, ...],
    summary: Path | None,
    dry_run: bool,
    yes: bool,
    index: Path,
    quiet: bool,
) -> None:
    """Remove photos from the index; their files stay.

    A PATH is a file or folder of the gallery, on disk or as results show it.
    """
    from sketch_search.indexer.upkeep import plan_removal, remove, removed_elsewhere

    if summary is not None:
        targets = (*targets, *removed_elsewhere(summary, index))
        if not targets and not ids:
            show(["nothing listed in the file as removed is in this index."], quiet)
            return
    if not targets and not ids:
        raise BadInvocation("name the files or folders to remove by their paths, or photos by --id N.")
    plan = plan_removal(targets, index, ids=ids)
    lines = [line("leaves", f"{path} ({plural(files, 'file')})") for path, files in plan.leaving]
    if dry_run:
        show([*lines, f"nothing was changed; this would remove {plan.files} of {plan.of} files."])
        return
    if plan.files * 10 > plan.of and not yes:
        raise BadInvocation(
            f"this removes {plan.files} of {plan.of} files, more than a tenth of the gallery; list them with "
            "--dry-run, then repeat the command with --yes."
        )
    report = remove(targets, index, ids=ids)
    removed = f"{plural(report.files, 'file')}; unchanged on disk, out of the index until added again"
    current = line("index", f"generation {report.generation}, now current")
    show([*lines, line("removed", removed), line("photos", f"{report.photos}"), current], quiet)


@click.command()
@INDEX
@option("--json", "Print JSON.", name="as_json")
def info(index: Path, as_json: bool) -> None:
    """Describe an index."""
    from sketch_search.indexer.upkeep import read_summary

    summary = read_summary(index)
    if as_json:
        print(printable_json(summary.model_dump_json(indent=1)))
        return
    manifest, counts = summary.manifest, summary.manifest.counts
    kept = "one vector" if manifest.tokens == 1 else f"{manifest.tokens} tokens"
    size, segments = summary.bytes_on_disk, plural(len(manifest.segments), "segment")
    missing = f"; {manifest.unseen} still lack them, which `sketch-search index build` adds" if manifest.unseen else ""
    parts = f", and {counts.parts} parts of pages and panoramas" if counts.parts else ""
    lines = [
        line("index", f"{summary.path}, generation {summary.generation}, format {manifest.format_version}"),
        line("built", f"{manifest.created:%Y-%m-%d %H:%M:%S} UTC by version {manifest.software}"),
        line("photos", f"{counts.photos} ({counts.files} files, {counts.duplicates} of them duplicates){parts}"),
        line("bad files", f"{counts.bad}"),
        line("clusters", f"{counts.clusters}, by {manifest.embedder.description}"),
        line("system", manifest.system),
        line("network", f"{manifest.network}, {kept} of {manifest.width} numbers"),
        line("photo side", manifest.photo_sha256),
        line("computed by", "; ".join(manifest.computed)),
        line("boxes", f"{summary.boxes} of things, in {plural(summary.photos_with_boxes, 'photo')}{missing}"),
        line("on disk", f"{size / 2**20:.1f} MiB in {segments}, {size / 2**10 / counts.photos:.1f} KiB a photo"),
    ]
    lines += [line("root", f"{root.name}: {root.path}") for root in manifest.roots]
    lines += [line("excluded", pattern) for pattern in manifest.excluded]
    lines += [line("removed", path) for path in summary.removed]
    show(lines + [line("not indexed", f"{bad.path}: {bad.reason}") for bad in summary.bad])


@click.command()
@INDEX
def verify(index: Path) -> int:
    """Check every byte of an index."""
    from sketch_search.indexer.upkeep import verify

    problems = verify(index)
    show(problems or [f"the index at {index} is sound."])
    return 1 if problems else 0


@click.command()
@click.argument("folder", type=a_path, metavar="DIR")
def samples(folder: Path) -> None:
    """Draw a sample gallery, and sketches to search it with.

    They are written to the folders photos and sketches in DIR.
    """
    from sketch_search.indexer.samples import EACH, SCENES, SKETCHED, THINGS, write_samples

    copied = write_samples(folder)
    drawn = f"{len(THINGS) * EACH} drawn of {len(THINGS)} things, {len(SCENES) * EACH} of two at a time"
    more = f", and {plural(copied, 'photo')} from other packages" if copied else ""
    show([line("photos", f"{folder / 'photos'}: {drawn}{more}")])
    show([line("sketches", f"{folder / 'sketches'}: {len(SKETCHED)}")])


# The most threads; the service's settings have the same limit.
_MAX_THREADS = 512
# The exit code of a build that keeps photos it did not find.
_SOME_UNREAD = 3
# The most seconds between two checks of the gallery. Systems limit how long a program can wait.
_LONGEST_INTERVAL = 7 * 24 * 3600


@dataclass(frozen=True)
class Work:
    index: Path
    weights: Path | None
    device: str
    quiet: bool

    def progress(self) -> Progress:
        from sketch_search.indexer.building.staging import Progress

        return Progress(bar=not self.quiet)

    def matcher(self, system: System | Literal["auto"] = "auto") -> Matcher:
        """Loads the network: that of a named system, or else the index's. Raises ModelError, BadInvocation."""
        import faiss

        from sketch_search import model
        from sketch_search.indexer.store.generation import NETWORK_OF, network_of
        from sketch_search.model.engine import set_threads

        # Pillow's warnings about a picture are not printed: the report describes its problem.
        warnings.filterwarnings("ignore", module=r"PIL\b")
        threads = os.environ.get("SKETCH_SEARCH_THREADS") or "auto"
        if threads != "auto":
            if not re.fullmatch("[0-9]{1,9}", threads) or not 1 <= int(threads) <= _MAX_THREADS:
                raise BadInvocation(
                    f"SKETCH_SEARCH_THREADS is {threads[:64]!r}; set it to auto, or to a number of CPU threads, from 1 "
                    f"to {_MAX_THREADS}."
                )
            set_threads(int(threads))
            faiss.omp_set_num_threads(int(threads))
        network = network_of(self.index) if system == "auto" else NETWORK_OF[system]
        return model.load(self.weights or network, self.device)

    def build(self, request: BuildRequest, matcher: Matcher | None = None) -> int:
        from sketch_search.indexer.building.builder import build

        # Before the network is loaded, so that simple mistakes are reported at once.
        request.check(self.index)
        return self.done(build(self.index, request, matcher or self.matcher(request.system), self.progress()))

    def done(self, report: BuildReport) -> int:
        show([line(name, value) for name, value in report.facts(self.device)], self.quiet)
        for error in report.kept:
            print(printable(f"error: {error}"), file=sys.stderr, flush=True)
        return _SOME_UNREAD if report.kept else 0


def _computing(command: Callable[..., int]) -> Callable[..., int]:

    @INDEX
    @option(
        "--weights FILE",
        "Checkpoint (default: SKETCH_SEARCH_WEIGHTS, else the embedded one).",
        a_path,
        default=inherit("weights", "SKETCH_SEARCH_WEIGHTS"),
    )
    @option(
        "--device NAME",
        "auto, cpu or cuda (default: SKETCH_SEARCH_DEVICE; SKETCH_SEARCH_THREADS sets the number of CPU threads).",
        default=inherit("device", "SKETCH_SEARCH_DEVICE"),
    )
    @QUIET
    @wraps(command)
    def called(index: Path, weights: Path | None, device: str | None, quiet: bool, **options: Any) -> int:
        # Photos are encoded side by side, each in one thread. With NumPy's own, they take three halves of the time.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        return command(Work(index, weights, device or "auto", quiet), **options)

    return called


_EXCLUDE = option(
    "--exclude PATTERN",
    "Leave out files and folders by patterns as in .gitignore, now and in later builds; repeatable.",
    name="excluded",
    multiple=True,
)
_INCLUDE = option("--include PATTERN", "Drop a pattern of --exclude; repeatable.", name="included", multiple=True)


@click.command()
@click.argument("folders", type=a_folder, nargs=-1, metavar="[FOLDER]...")
@option("--clusters N", "Default: about the square root of the number of photos.", int)
@_EXCLUDE
@_INCLUDE
@option("--checksum", "Read every file, to find changes that left size and times as they were.")
@option(
    "--embedder NAME",
    "What photos are clustered by: ret, the checkpoint's; clip, or clip:MODEL/PRETRAINED, clip:MODEL@FILE or "
    "clip:FOLDER; or auto: the index's own, else clip if its weights are on this disk, else ret.",
    default="auto",
)
@option(
    "--system auto|default|two-stage",
    "two-stage: the two-stage report's, with ZSE-SBIR's network and 125 clusters; plain searches then use it "
    "(auto: as in the existing index, else default).",
    click.Choice(("auto", "default", "two-stage")),
    default="auto",
)
@option(
    "--tokens auto|all|none",
    "none: a much smaller index, searched by vectors alone (auto: as in the existing index, else all).",
    click.Choice(("auto", "all", "none")),
    default="auto",
)
@option(
    "--max-pixels N",
    "Largest photo that is decoded, JPEGs aside (134217728; SKETCH_SEARCH_MAX_PIXELS if that is more).",
    click.IntRange(1, 10**9),
    default=inherit("", "SKETCH_SEARCH_MAX_PIXELS"),
)
@option("--yes", "Drop folders that are not listed, and missing photos, even if more than a tenth of all.")
@option("--ray ADDRESS", "Build on many machines, into shards, by a Ray cluster: auto, local or HOST:PORT of its head.")
@option("--shards N", "With --ray: number of shards (default: as many as exist, or one).", int)
@option("--workers N", "With --ray: number of workers (default: one for each CPU or GPU of the cluster).", int)
@option("--watch", "Keep running, and index changes as they happen.")
@option("--interval SECONDS", "With --watch: seconds between two checks (10).", float, default=10.0)
@_computing
def build(
    work: Work,
    yes: bool,
    ray: str | None,
    shards: int | None,
    workers: int | None,
    watch: bool,
    interval: float,
    checksum: bool,
    max_pixels: int | None,
    **options: Any,
) -> int:
    """Index folders of photos, or update their index.

    The FOLDERs you list replace the indexed ones; by default, those are updated.
    """
    from sketch_search.indexer.building.plan import BuildRequest

    request = BuildRequest(shards=shards, allow_root_removal=yes, allow_loss=yes, checksum=checksum, **options)
    request = replace(request, max_pixels=max(max_pixels or 0, request.max_pixels))
    if (ray, shards, workers) != (None, None, None):
        if ray is None:
            raise BadInvocation(
                "--shards and --workers are for a build on many machines; name its Ray cluster with --ray."
            )
        for name, is_set in (("watch", watch), ("checksum", checksum), ("system", request.system == "two-stage")):
            if is_set:
                raise BadInvocation(f"--{name} is for one index on one machine; leave it out, or build without --ray.")
        from sketch_search.indexer.distributed import Machines, build_shards

        machines = Machines(ray, work.device, workers, None if work.weights is None else str(work.weights))
        return work.done(build_shards(work.index, request, machines, work.progress()))
    return _watch(work, request, interval) if watch else work.build(request)


@click.command()
@click.argument("added", type=a_folder, nargs=-1, required=True, metavar="PATH...")
@_EXCLUDE
@_INCLUDE
@_computing
def add(work: Work, added: tuple[Path | str, ...], excluded: tuple[str, ...], included: tuple[str, ...]) -> int:
    """Add folders to the gallery, or show again what was removed.

    A PATH is a folder to add, or a removed file or folder to show again: on disk, or as results show it.
    """
    from sketch_search.indexer.building.plan import BuildRequest
    from sketch_search.indexer.upkeep import address_of_removed

    addresses = [address_of_removed(path, work.index) for path in added]
    return work.build(BuildRequest(added=addresses, excluded=excluded, included=included))


def _watch(work: Work, request: BuildRequest, interval: float) -> int:
    from sketch_search.indexer.building.builder import build
    from sketch_search.indexer.building.plan import BuildRequest
    from sketch_search.indexer.upkeep import gallery_state, watch

    if not 0 < interval <= _LONGEST_INTERVAL:
        raise BadInvocation(f"the interval must be a number of seconds above 0, at most {_LONGEST_INTERVAL} (a week).")
    request.check(work.index)
    matcher, last_error = work.matcher(request.system), ""

    def report_once(error: str) -> None:
        nonlocal last_error
        if error not in ("", last_error):
            print(printable(f"error: {error}"), file=sys.stderr, flush=True)
        last_error = error

    def read_state() -> str:
        """Returns the state of the gallery; a fixed word while it cannot be read."""
        try:
            return gallery_state(work.index)
        except (IndexerError, OSError) as error:
            report_once(str(error))
            return "unreadable"

    def update() -> bool:
        """Updates the index. Returns False on failure."""
        try:
            # The request lists no folders, because ``add`` and ``remove`` may have changed those of the index.
            report = build(work.index, BuildRequest(), matcher, work.progress())
        except (IndexerError, OSError) as error:
            report_once(str(error))
            return False
        report_once(" ".join(report.kept))
        if report.changed:
            when, counts = time.strftime("%Y-%m-%d %H:%M:%S"), f"{report.photos} photos, {report.encoded} encoded now"
            counts += f", {report.settled.gone} gone, {len(report.bad)} not indexed"
            show([f"{when} generation {report.generation}: {counts}"], work.quiet)
        return True

    # A service manager ends the program by SIGTERM, which acts like Ctrl-C here: a stopped build loses nothing.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # Changes during the build are seen after the first pause.
        before = gallery_state(work.index, request)
        work.build(request, matcher)
        show([f"looking for changes every {interval:g} seconds; Ctrl-C ends this."], work.quiet)
        watch(read_state, update, map(time.sleep, repeat(interval)), before)
    except KeyboardInterrupt:
        show(["stopped watching."], work.quiet)
    return 0


index = CommandGroup(
    "index",
    load=lambda: (build, add, remove, info, verify, samples),
    default="build",
    help="Build, inspect and maintain an index of photos. FOLDERs without a command are indexed.",
    subcommand_metavar="[FOLDER ...] | COMMAND ...",
    epilog=examples(
        "sketch-search index ~/Pictures          once, and again to update",
        "sketch-search index build --watch       keep running, and index changes",
        'sketch-search index remove "holiday/blurred.jpg"',
        "sketch-search index info",
    ),
)


def main(arguments: Sequence[str] | None = None, prog: str = "sketch-search index") -> int:
    """Runs one command. Returns 0, 1 for problems found, 3 for unread folders, or as ``run_program``."""
    return run(index, arguments, prog)
