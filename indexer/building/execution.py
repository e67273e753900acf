"""A build, from what is asked for to its report: find the embedder, take the lock, decide, build."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from indexer.building.builder import Builder, BuildReport
from indexer.building.decision import StartingPoint, decide, wanted_embedder
from indexer.building.progress import Progress
from indexer.building.request import DEFAULT_BATCH, Request
from indexer.errors import BadInvocation
from indexer.store import INVERTED_FROM, MOST_CELLS, IndexFolder, Origin, live_generation_if_any
from model import Matcher


def build(
    folders: Sequence[Path],
    index: Path,
    matcher: Matcher,
    *,
    clusters: int | None = None,
    embedder: str = "auto",
    recluster: bool = False,
    checksum: bool = False,
    progress: Progress | None = None,
    batch: int = DEFAULT_BATCH,
    inverted_from: int = INVERTED_FROM,
) -> BuildReport:
    """Index all photos below ``folders``, or bring their index up to date. A build that was killed is continued.

    Args:
        folders: all folders of the gallery; none for those that the index has.
        clusters: how many; None for about sqrt(photos), or for those that the live index has. Another number than the
            live index has makes the clusters anew.
        embedder: "ret", "clip", "clip:..."; or "auto": the live index's, else "ret".
        recluster: make the clusters anew even if their number stays. Photos that are known are not computed again.
        checksum: read every file, also those whose size and times are as they were. Only photos that have changed are
            computed.
        batch: files between two commits of the journal.
        inverted_from: from so many photos on the index gets an inverted file, by which it is searched. One that has it
            keeps it until its clusters are made anew.

    Raises:
        BadInvocation: what is asked for cannot be done; EmbedderUnavailable and IndexUnwritable are such errors.
        IndexBusy: another build is writing this index.
        IndexRefused: the index that is there has another format or is damaged.
    """
    request = Request(
        folders=tuple(folders),
        clusters=clusters,
        embedder=embedder,
        recluster=recluster,
        checksum=checksum,
        batch=batch,
        inverted_from=inverted_from,
    )
    return run(index, request, matcher, progress)


def add(
    paths: Sequence[Path],
    index: Path,
    matcher: Matcher,
    *,
    progress: Progress | None = None,
    batch: int = DEFAULT_BATCH,
) -> BuildReport:
    """Add folders to the gallery, and bring its index up to date.

    A path inside the gallery is shown again with all below it, where ``remove`` took it out.

    Raises:
        BadInvocation, IndexBusy, IndexRefused: as ``build`` does.
    """
    return run(index, Request(added=tuple(paths), batch=batch), matcher, progress)


def run(index: Path, request: Request, matcher: Matcher, progress: Progress | None = None) -> BuildReport:
    """Do what is asked for. Raises what ``build`` does."""
    folder = IndexFolder(index)
    request.check(folder.path)
    if matcher.token_count("photo") > 1 and matcher.config.grid**2 > MOST_CELLS:
        raise BadInvocation("an index holds patch grids up to 16 by 16; use a checkpoint with fewer patches.")
    # Taken and released, so that an index that is busy or cannot be written is refused now and not after a download.
    with folder.writing():
        pass
    live = StartingPoint(live_generation_if_any(folder))
    origin = Origin.of(matcher)
    wanted = wanted_embedder(request, live.manifest, origin)
    while True:
        # Without the lock, because it may download.
        embedder = wanted.find(matcher.device)
        with folder.writing():
            start = StartingPoint(live_generation_if_any(folder))
            wanted_now = wanted_embedder(request, start.manifest, origin)
            if wanted_now == wanted:
                decision = decide(request, start, origin, embedder, folder.path)
                return Builder(folder, decision, matcher, progress or Progress()).run()
        # Another build ended before the lock was taken, and the index has another embedder now.
        wanted = wanted_now
