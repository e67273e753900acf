"""An index made whole again: what is sound of it stays, and the photos give the rest."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from indexer.building import DEFAULT_BATCH, Base, Builder, BuildReport, Progress, Request, live_roots
from indexer.errors import IndexRefused, IndexTooNew
from indexer.store import Generation, IndexFolder, Manifest, read_catalog, read_manifest
from indexer.upkeep.verification import examine
from model import Matcher


@dataclass(frozen=True)
class RepairReport:
    """What was found and done.

    Attributes:
        problems: what was wrong, a sentence each; none for a sound index, which is left alone.
        build: what the build that mended it did; None where there was nothing to mend.
        remaining: what is still wrong.
    """

    problems: tuple[str, ...]
    build: BuildReport | None = None
    remaining: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with an index, and what is left to go on from.

    Attributes:
        problems: a sentence each. manifest: the newest that can be read; it names folders and network.
        base: the newest generation with a sound catalog, and its damaged segments.
        clusters: whether they have to be made anew.
    """

    problems: tuple[str, ...]
    manifest: Manifest
    base: Base
    clusters: bool


def diagnose(folder: IndexFolder) -> Diagnosis:
    """Look at every byte of an index, at those of older generations where the live one does not suffice.

    Raises:
        IndexRefused: nothing of it can be gone on from, or it is newer. OSError: a file may not be read.
    """
    problems: list[str] = []
    try:
        live = folder.current()
    except IndexRefused as error:
        live = ""
        problems.append(str(error))
    if live is None:
        raise IndexRefused(f"there is no index at {folder.path}; run `python -m indexer build FOLDER` first.")
    names = folder.generations()
    if live and live not in names:
        problems.append(f"{folder.generation(live)} is missing.")
    # What is newer than the live generation was never live.
    later = names.index(live) if live in names else 0
    newest: Manifest | None = None
    next_id = _next_id(folder, names)
    for name in names[later:]:
        try:
            manifest = read_manifest(folder.generation(name) / "manifest.json")
        except IndexTooNew:
            raise
        except IndexRefused as error:
            problems.append(str(error))
            continue
        newest = newest or manifest
        generation = Generation(name, folder.generation(name), manifest)
        found = examine(folder, generation)
        problems += [problem.sentence for problem in found]
        parts = {problem.part for problem in found}
        if "catalog" in parts:
            continue
        damaged = frozenset(problem.segment for problem in found if problem.part == "segment")
        base = Base(generation, False, damaged, next_id)
        return Diagnosis(tuple(problems), newest, base, clusters="clusters" in parts)
    if newest is None:
        raise IndexRefused(
            f"nothing of {folder.path} can be repaired: no manifest can be read; delete the folder and build again."
        )
    problems.append("no catalog is left: photos get new ids, and those that were removed come back.")
    return Diagnosis(tuple(problems), newest, Base(None, False, frozenset(), next_id), clusters=True)


def _next_id(folder: IndexFolder, names: Sequence[str]) -> int:
    """Above every id that any manifest or catalog left knows of."""
    found = 1
    for name in names:
        with suppress(IndexRefused):
            found = max(found, read_manifest(folder.generation(name) / "manifest.json").next_id)
        with suppress(IndexRefused):
            photos = read_catalog(folder.generation(name) / "photos.sqlite")
            found = max([found, *(photo.id + 1 for photo in photos)])
    return found


def repair(
    index: Path, matcher: Matcher, *, progress: Progress | None = None, batch: int = DEFAULT_BATCH
) -> RepairReport:
    """Check every byte of an index, and make anew from the photos what is damaged; brings it up to date as well.

    Raises:
        BadInvocation: a folder of photos is missing, IndexUnwritable among it. IndexBusy: a build is writing it.
        IndexRefused: there is no index, it is newer, or another checkpoint's, or nothing is left to go on from.
    """
    folder = IndexFolder(index)
    if not folder.path.is_dir():
        raise IndexRefused(f"there is no index at {folder.path}; run `python -m indexer build FOLDER` first.")
    with folder.writing():
        diagnosis = diagnose(folder)
        if not diagnosis.problems:
            return RepairReport(())
        manifest = diagnosis.manifest
        if manifest.checkpoint_sha256 != matcher.checkpoint_sha256:
            raise IndexRefused(
                f"the index at {folder.path} was built with another checkpoint ({manifest.network}, "
                f"{manifest.checkpoint_sha256[:12]}); name it with --weights."
            )
        request = Request(
            folders=tuple(root.path for root in live_roots(manifest)),
            # "auto" is what the base has, if there is one, and downloads nothing.
            embedder=manifest.embedder.spec if diagnosis.base.generation is None else "auto",
            recluster=diagnosis.clusters,
            batch=batch,
        )
        report = Builder(folder, request, matcher, progress or Progress(), diagnosis.base).run()
        return RepairReport(diagnosis.problems, report, diagnose(folder).problems)
