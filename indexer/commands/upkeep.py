"""The commands that inspect an index, and remove photos from it; and what all commands share."""

from collections.abc import Sequence
from pathlib import Path

import click

from sketch_search.indexer.errors import BadInvocation
from sketch_search.indexer.store.location import default_index_path
from sketch_search.model.command_line import a_path, inherit, option
from sketch_search.model.terminal import printable, printable_json

INDEX = option(
    "--index DIR",
    "Default: SBIR_INDEX, else your data folder.",
    a_path,
    default=inherit("index"),
    callback=lambda context, parameter, named: default_index_path() if named is None else named,
)
QUIET = option("--quiet", "Print errors only: no progress bar and no report.")


def show(lines: Sequence[str], quiet: bool = False) -> None:
    if lines and not quiet:
        print(*map(printable, lines), sep="\n", flush=True)


def count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


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
    lines = [line("leaves", f"{path} ({count(files, 'file')})") for path, files in plan.leaving]
    if dry_run:
        show([*lines, f"nothing was changed; this would remove {plan.files} of {plan.of} files."])
        return
    if plan.files * 10 > plan.of and not yes:
        raise BadInvocation(
            f"this removes {plan.files} of {plan.of} files, more than a tenth of the gallery; list them with "
            "--dry-run, then repeat the command with --yes."
        )
    report = remove(targets, index, ids=ids)
    removed = f"{count(report.files, 'file')}; unchanged on disk, out of the index until added again"
    current = line("index", f"generation {report.generation}, now current")
    show([*lines, line("removed", removed), line("photos", f"{report.photos}"), current], quiet)


@click.command()
@INDEX
@option("--json", "Print JSON.", name="as_json")
def info(index: Path, as_json: bool) -> None:
    """Describe an index."""
    from sketch_search.indexer.store.generation import AVX2_ALONE
    from sketch_search.indexer.upkeep import read_summary

    summary = read_summary(index)
    if as_json:
        print(printable_json(summary.model_dump_json(indent=1)))
        return
    manifest, counts = summary.manifest, summary.manifest.counts
    kept = "one vector" if manifest.tokens == 1 else f"{manifest.tokens} tokens"
    size, segments = summary.bytes_on_disk, count(len(manifest.segments), "segment")
    lacking = counts.photos if manifest.detector is None else manifest.unseen
    added = f"; {lacking} still lack them, which `sketch-search index build` adds"
    missing = added if lacking and manifest.keeps_boxes else ""
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
        line("computed by", "; ".join(manifest.computed) or f"{AVX2_ALONE}; `sketch-search index build` checks it"),
        line("boxes", f"{summary.boxes} of things, in {count(summary.photos_with_boxes, 'photo')}{missing}"),
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

    written = write_samples(folder)
    drawn = (
        f"{written.photos}: {len(THINGS) * EACH} drawn of {len(THINGS)} things, {len(SCENES) * EACH} of two at a time"
    )
    copied = f", and {count(written.copied, 'photo')} from other packages" if written.copied else ""
    show([line("photos", drawn + copied), line("sketches", f"{written.sketches}: {len(SKETCHED)}")])
