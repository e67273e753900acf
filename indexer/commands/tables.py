"""Tables that the commands print, as lines."""

from __future__ import annotations

from indexer.building import BuildReport
from indexer.samples import Samples
from indexer.upkeep import IndexSummary, RemovalPlan, UpkeepReport


def build_lines(report: BuildReport) -> list[str]:
    """Tell of a build: count the photos, name the files that were not indexed, and the shards where there are any."""
    lines = [_line("not indexed", f"{bad.path}: {bad.reason}") for bad in report.bad]
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
    return [*lines, _line("index", f"{report.index}, {_state(report.generation, report.changed)}")]


def unlisted_lines(report: BuildReport) -> list[str]:
    """The folders that a build could not read."""
    return [f"{folder.path}: {folder.reason}; what was known of it stays." for folder in report.unlisted]


def update_line(report: BuildReport) -> str:
    """Tell of a build in one line for a log."""
    advice = f"; {report.drift.describe()}" if report.drift is not None and report.drift.excessive else ""
    return (
        f"generation {report.generation}: {report.photos} photos, {report.encoded} encoded now, {report.gone} gone, "
        f"{len(report.bad)} not indexed{advice}"
    )


def plan_lines(plan: RemovalPlan) -> list[str]:
    """Name the files and folders that leave the index."""
    return [_line("leaves", f"{leaving.path} ({_count(leaving.files, 'file')})") for leaving in plan.leaving]


def remove_lines(plan: RemovalPlan, report: UpkeepReport) -> list[str]:
    """Tell of a removal."""
    return [
        *plan_lines(plan),
        _line("removed", f"{_count(report.files, 'file')}; on disk as before, and out of the index until added again"),
        _line("photos", f"{report.photos}"),
        _line("index", _state(report.generation, report.changed)),
    ]


def compact_lines(report: UpkeepReport) -> list[str]:
    """Tell of a compaction."""
    left = f"{_count(report.rows, 'row')} in {_count(report.segments, 'segment')} left"
    return [
        _line("dropped", f"{_count(report.dropped, 'row')} no longer shown"),
        _line("freed", f"{report.freed / 2**20:.1f} MiB, {left}"),
        _line("index", _state(report.generation, report.changed)),
    ]


def summary_lines(summary: IndexSummary) -> list[str]:
    """Tell of an index."""
    manifest, counts = summary.manifest, summary.manifest.counts
    lines = [
        _line("index", f"{summary.path}, generation {summary.generation}, format {manifest.format_version}"),
        _line("built", f"{manifest.created:%Y-%m-%d %H:%M:%S} UTC by version {manifest.software}"),
        _line("photos", f"{counts.photos} ({counts.files} files, {counts.duplicates} of them duplicates)"),
        _line("bad files", f"{counts.bad}"),
        _line("clusters", f"{counts.clusters}, by {manifest.embedder.description}"),
        _line("drift", summary.drift.describe()),
        _line("network", f"{manifest.network}, {_of_a_photo(manifest.tokens, manifest.width)}"),
        _line("photo weights", manifest.photo_sha256),
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


def sample_lines(samples: Samples) -> list[str]:
    """Tell of the sample gallery."""
    drawn = f"{samples.photos}: {samples.drawn} drawn of {samples.things} things"
    return [
        _line("photos", f"{drawn}, and {samples.copied} photos from scikit-learn"),
        _line("sketches", f"{samples.sketches}: {samples.sketched}"),
    ]


def _state(generation: str, changed: bool) -> str:
    return f"generation {generation}, {'now live' if changed else 'nothing has changed; it stays as it is'}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _of_a_photo(tokens: int, width: int) -> str:
    """The size of one photo's row, in words."""
    return f"one vector of {width} numbers" if tokens == 1 else f"{tokens} tokens of {width} numbers"


def _line(name: str, value: str) -> str:
    return f"{name + ':':<13}{value}"
