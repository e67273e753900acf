"""Writes what the commands print, and defines the options that most of them have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from indexer.store.location import default_index_path
from model.command_line import a_path, before, option
from model.terminal import printable

if TYPE_CHECKING:
    from indexer.building.builds import BuildReport
    from indexer.samples import Samples
    from indexer.upkeep import IndexSummary, RemovalPlan, RemovalReport

INDEX = option(
    "--index DIR",
    "Default: SBIR_INDEX, else your data folder.",
    a_path,
    default=before("index"),
    callback=lambda context, parameter, named: default_index_path() if named is None else named,
)
QUIET = option("--quiet", "No bar and no report; errors only.")
# The exit code of a build that had to leave out folders.
SOME_UNREAD = 3


def show(lines: Sequence[str], quiet: bool = False) -> None:
    """Prints lines, unless ``quiet``."""
    if lines and not quiet:
        print(*map(printable, lines), sep="\n", flush=True)


def of_build(report: BuildReport) -> list[str]:
    """Describes a build: what it did, which files were not indexed, and the shards if there are any."""
    lines = [_line("was damaged", problem) for problem in report.damaged]
    lines += [_line("not indexed", f"{bad.path}: {bad.reason}") for bad in report.bad]
    duplicates = f" ({report.files} files, {report.duplicates} of them duplicates)" if report.duplicates else ""
    lines += [_line("skipped", passed) for passed in report.skipped.describe()]
    lines.append(_line("photos", f"{report.photos}{duplicates}"))
    if report.prefixes:
        lines.append(_line("paths", f"begin with the name of their folder from now on: {', '.join(report.prefixes)}"))
    lines.append(_line("encoded now", f"{report.encoded}"))
    if report.gone:
        lines.append(_line("gone", f"{report.gone}"))
    if report.bad:
        lines.append(_line("bad", f"{len(report.bad)}, named above"))
    lines.append(_line("clusters", f"{report.clusters}, by {report.embedder}"))
    for shard in report.shards:
        counts = f"{_count(shard.photos, 'photo')}, {_count(shard.clusters, 'cluster')}"
        lines.append(_line(shard.folder, f"{counts}, {shard.generation}"))
    if report.shards:
        state = "now live" if report.changed else "nothing has changed; they stay as they are"
        lines.append(_line("time", f"{report.seconds:.1f} s, {_count(report.workers, 'worker')}"))
        return [*lines, _line("shards", f"{len(report.shards)} in {report.index}, {state}")]
    lines.append(_line("time", f"{report.seconds:.1f} s"))
    return [*lines, _state(report, f"{report.index}, ")]


def in_one_line(report: BuildReport) -> str:
    """Describes a build of a watch."""
    done = f"{report.photos} photos, {report.encoded} encoded now, {report.gone} gone, {len(report.bad)} not indexed"
    return f"generation {report.generation}: {done}"


def unlisted(report: BuildReport) -> list[str]:
    """Names the folders that a build could not read."""
    return [f"{folder.path}: {folder.reason}; what was known of it stays." for folder in report.unlisted]


def of_plan(plan: RemovalPlan) -> list[str]:
    """Names the files and folders that leave the index."""
    return [_line("leaves", f"{path} ({_count(files, 'file')})") for path, files in plan.leaving]


def of_removal(report: RemovalReport) -> list[str]:
    """Describes what was removed."""
    removed = f"{_count(report.files, 'file')}; on disk as before, and out of the index until added again"
    return [_line("removed", removed), _line("photos", f"{report.photos}"), _state(report)]


def of_samples(samples: Samples) -> list[str]:
    """Describes a sample gallery."""
    drawn = f"{samples.photos}: {samples.drawn} drawn of {samples.things} things"
    copied = f", and {_count(samples.copied, 'photo')} from other packages" if samples.copied else ""
    return [_line("photos", drawn + copied), _line("sketches", f"{samples.sketches}: {samples.sketched}")]


def of_index(summary: IndexSummary) -> list[str]:
    """Describes an index."""
    manifest, counts = summary.manifest, summary.manifest.counts
    kept = "one vector" if manifest.tokens == 1 else f"{manifest.tokens} tokens"
    lines = [
        _line("index", f"{summary.path}, generation {summary.generation}, format {manifest.format_version}"),
        _line("built", f"{manifest.created:%Y-%m-%d %H:%M:%S} UTC by version {manifest.software}"),
        _line("photos", f"{counts.photos} ({counts.files} files, {counts.duplicates} of them duplicates)"),
        _line("bad files", f"{counts.bad}"),
        _line("clusters", f"{counts.clusters}, by {manifest.embedder.description}"),
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
    return lines + [_line("not indexed", f"{bad.path}: {bad.reason}") for bad in summary.bad]


def _state(report: BuildReport | RemovalReport, index: str = "") -> str:
    state = "now live" if report.changed else "nothing has changed; it stays as it is"
    return _line("index", f"{index}generation {report.generation}, {state}")


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _line(name: str, value: str) -> str:
    return f"{name + ':':<13}{value}"
