"""Repair: what is sound of a damaged index stays, and the rest is made anew from the photos."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from indexer.building import (
    DEFAULT_BATCH,
    Builder,
    BuildReport,
    Progress,
    Request,
    StartingPoint,
    decide,
    live_roots,
    wanted_embedder,
)
from indexer.embedding import ChosenEmbedder, WantedEmbedder
from indexer.errors import BadInvocation, IndexRefused, OtherFormat, no_index
from indexer.store import Generation, IndexFolder, Manifest, Origin, read_catalog, read_manifest
from indexer.upkeep.verification import examine
from model import Matcher


@dataclass(frozen=True)
class RepairReport:
    """What was found and done.

    Attributes:
        problems: what was wrong, one sentence each; nothing for a sound index, which is left alone.
        build: what the build did that repaired it; None where there was nothing to repair.
        remaining: what is still wrong.
    """

    problems: tuple[str, ...]
    build: BuildReport | None = None
    remaining: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with an index, and what a repair can go on from.

    Attributes:
        problems: one sentence each.
        manifest: the newest that can be read; it names the folders, the network and the embedder.
        start: the newest generation whose catalog is sound, and which of its segments are damaged.
        recluster: whether the clusters have to be made anew.
    """

    problems: tuple[str, ...]
    manifest: Manifest
    start: StartingPoint
    recluster: bool


def diagnose(folder: IndexFolder) -> Diagnosis:
    """Check the live generation, and earlier ones where the live one's catalog is damaged. All of them is read.

    Raises:
        IndexRefused: there is no index, it has another format, or nothing can be gone on from.
        OSError: a file may not be read.
    """
    problems: list[str] = []
    names = folder.generations()
    # A generation newer than the live one is what a killed build has left. It was never live.
    candidates = names
    try:
        live = folder.current()
    except IndexRefused as error:
        problems.append(str(error))
    else:
        if live is None:
            raise no_index(folder.path)
        if live in names:
            candidates = names[names.index(live) :]
        else:
            problems.append(f"{folder.generation(live)} is missing.")
    newest: Manifest | None = None
    next_id = _next_id(folder, names)
    for name in candidates:
        try:
            manifest = read_manifest(folder.generation(name) / "manifest.json")
        except OtherFormat:
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
        damaged = frozenset(problem.segment for problem in found if problem.segment is not None)
        start = StartingPoint(generation, repairing=True, damaged=damaged, next_id=next_id)
        return Diagnosis(tuple(problems), newest, start, recluster="clusters" in parts)
    if newest is None:
        raise IndexRefused(
            f"nothing of {folder.path} can be repaired: no manifest can be read; delete the folder and build again."
        )
    problems.append("no catalog is left: photos get new ids, and those that were removed come back.")
    return Diagnosis(tuple(problems), newest, StartingPoint(None, repairing=True, next_id=next_id), recluster=True)


def _next_id(folder: IndexFolder, names: Sequence[str]) -> int:
    """An id above all ids in the manifests and catalogs that can be read."""
    found = 1
    for name in names:
        with suppress(IndexRefused):
            found = max(found, read_manifest(folder.generation(name) / "manifest.json").next_id)
        with suppress(IndexRefused):
            files = read_catalog(folder.generation(name) / "photos.sqlite")
            found = max([found, *(file.id + 1 for file in files)])
    return found


def repair(
    index: Path, matcher: Matcher, *, progress: Progress | None = None, batch: int = DEFAULT_BATCH
) -> RepairReport:
    """Check all of an index, and make what is damaged anew from the photos. That brings it up to date as well.

    Raises:
        BadInvocation: a folder of photos is missing; or as IndexUnwritable, the index's folder cannot be written.
        IndexBusy: a build is writing this index.
        IndexRefused: there is no index, it has another format or another checkpoint, or nothing of it can be used.
    """
    folder = IndexFolder(index)
    if not folder.path.is_dir():
        raise no_index(folder.path)
    found: dict[WantedEmbedder, ChosenEmbedder] = {}
    while True:
        with folder.writing():
            diagnosis = diagnose(folder)
            if not diagnosis.problems:
                return RepairReport(())
            request = _request(folder, diagnosis, matcher, batch)
            origin = Origin.of(matcher)
            wanted = wanted_embedder(request, diagnosis.start.manifest, origin)
            if not wanted.download:
                found[wanted] = wanted.find(matcher.device)
            if wanted in found:
                decision = decide(request, diagnosis.start, origin, found[wanted], folder.path)
                report = Builder(folder, decision, matcher, progress or Progress()).run()
                return RepairReport(diagnosis.problems, report, diagnose(folder).problems)
        # It may have to be downloaded, and for that the lock is not held. What is wrong is then found out again.
        found[wanted] = wanted.find(matcher.device)


def _request(folder: IndexFolder, diagnosis: Diagnosis, matcher: Matcher, batch: int) -> Request:
    """The build that repairs."""
    manifest = diagnosis.manifest
    if manifest.checkpoint_sha256 != matcher.checkpoint_sha256:
        raise IndexRefused(
            f"the index at {folder.path} was built with another checkpoint ({manifest.network}, "
            f"{manifest.checkpoint_sha256[:12]}); name it with --weights."
        )
    for root in manifest.roots:
        if not Path(root.path).is_dir():
            # Its photos would be lost where their rows are damaged.
            raise BadInvocation(f"{root.path} is not there; mount its disk, and run the same again.")
    return Request(
        folders=tuple(root.path for root in live_roots(manifest)),
        # "auto" is the embedder of the generation to go on from. Without any, the manifest still names it.
        embedder="auto" if diagnosis.start.generation is not None else manifest.embedder.spec,
        recluster=diagnosis.recluster,
        batch=batch,
    )
