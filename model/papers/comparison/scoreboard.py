"""A scoreboard of finished checkpoints on public data sets: full galleries, with checksums of weights and pictures."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from model.checkpoint import default_checkpoint, file_sha256
from model.datasets import Corpus, Layout, Protocol, read_task, subsampled
from model.errors import ModelError
from model.evaluation import Interval, intervals, measure, score_matrices
from model.matcher import Matcher, load
from model.papers.comparison.table import Retrieval
from model.papers.trainings import Outcome, markdown, read_record, write_record
from model.terminal import resolved

PROTOCOLS: tuple[Protocol, ...] = ("zero-shot", "generalised")


@dataclass(frozen=True)
class ScoreboardRequest:
    """Checkpoints, and the data that they are scored on.

    Attributes:
        checkpoints: their files.
        data: folders, such as datasets/Sketchy/zeroshot1, of which each is measured by PROTOCOLS.
        layout: of these folders.
        folder: a JSON file for each row; one of the same weights and pictures is not measured again.
        every: (n, m) takes every n-th sketch and every m-th photo.
        device: where to compute.
    """

    checkpoints: tuple[Path, ...]
    data: tuple[Path, ...]
    layout: Layout
    folder: Path
    every: tuple[int, int] = (1, 1)
    device: str = "cpu"


@dataclass(frozen=True)
class ScoredProtocol:
    """One protocol.

    Attributes:
        queries, photos: how many were measured.
        pictures_sha256: of all these files, their classes and their order.
        plain, diffused: by the checkpoint's best method; ``diffused`` is None for a checkpoint without a threshold.
        map_200, precision_200: further figures of the plain ranking, which the papers have.
        seconds: to encode and to score everything.
    """

    queries: int
    photos: int
    pictures_sha256: str
    plain: Retrieval
    diffused: Retrieval | None
    map_200: Interval
    precision_200: Interval
    seconds: float


@dataclass(frozen=True)
class ScoreboardRow:
    """A checkpoint on one data set.

    Attributes:
        checkpoint: the name of its file. sha256: of that.
        data: the name of the folder and of the one above it.
        method: by which it scored, its best one.
        zero_shot, generalised: the figures.
    """

    checkpoint: str
    sha256: str
    data: str
    method: str
    zero_shot: ScoredProtocol
    generalised: ScoredProtocol


def score_checkpoints(request: ScoreboardRequest, report: Callable[[str], object]) -> Outcome:
    """Measures every checkpoint on every folder. ``report`` gets sentences about the progress.

    The figures are valid for checkpoints that were trained on the seen classes of the same split; for the generalised
    protocol, without the photos that it shows of them.

    Raises ModelError for a checkpoint or a list that is missing or cannot be used.
    """
    paths = [default_checkpoint(path) for path in request.checkpoints]
    request.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for data in request.data:
        corpora = {protocol: _corpus(protocol, data, request) for protocol in PROTOCOLS}
        checksums = {protocol: pictures_sha256(corpus, resolved(data).parent) for protocol, corpus in corpora.items()}
        rows += [_row(path, data, corpora, checksums, request, report) for path in paths]
    return Outcome(rows, _table(rows))


def _table(rows: Sequence[ScoreboardRow]) -> str:
    """A line for each data set and checkpoint in Markdown, and one with checksums and times."""
    titles = ("data", "checkpoint", "protocol", "queries, photos", "mAP@all, Prec@100", "diffused", "mAP@200, Prec@200")
    lines = [
        (
            row.data,
            f"{row.checkpoint}, {row.method}",
            name,
            f"{found.queries:,}, {found.photos:,}",
            found.plain.cell,
            "" if found.diffused is None else found.diffused.cell,
            f"{found.map_200.value:.3f}, {found.precision_200.value:.3f}",
        )
        for row in rows
        for name, found in (("zero-shot", row.zero_shot), ("generalised", row.generalised))
    ]
    sums = []
    for row in rows:
        both = (row.zero_shot, row.generalised)
        pictures = ", ".join(f"`{found.pictures_sha256[:16]}`" for found in both)
        seconds = ", ".join(f"{found.seconds:,.0f}" for found in both)
        sums.append((row.data, row.checkpoint, f"`{row.sha256[:16]}`; {pictures}", seconds))
    below = markdown(("data", "checkpoint", "SHA-256 of weights, and of pictures", "seconds"), sums)
    return f"{markdown(titles, lines)}\n\n{below}"


def pictures_sha256(corpus: Corpus, root: Path) -> str:
    """Hex digest of queries and gallery: the class, the path below ``root`` and the bytes of every file, in order."""
    found = hashlib.sha256()
    for half in (corpus.sketches, corpus.photos):
        found.update(f"{len(half)}\n".encode())
        for picture in half:
            path = picture.path
            name = path.relative_to(root) if path.is_relative_to(root) else path
            found.update(f"{picture.label}\n{name.as_posix()}\n{file_sha256(path)}\n".encode())
    return found.hexdigest()


def _corpus(protocol: Protocol, data: Path, request: ScoreboardRequest) -> Corpus:
    corpus = read_task(protocol, None, None, data, request.layout).corpus
    if not corpus.sketches or not corpus.photos:
        raise ModelError(f"{data} has no queries or no photos for the {protocol} protocol")
    return subsampled(corpus, *request.every)


def _row(
    path: Path,
    data: Path,
    corpora: dict[Protocol, Corpus],
    checksums: dict[Protocol, str],
    request: ScoreboardRequest,
    report: Callable[[str], object],
) -> ScoreboardRow:
    folder = resolved(data)
    name = f"{folder.parent.name}/{folder.name}"
    kept = request.folder / f"{path.stem}-{folder.parent.name}-{folder.name}.json"
    found, sha256 = read_record(ScoreboardRow, kept), file_sha256(path)
    expected = (sha256, *(checksums[protocol] for protocol in PROTOCOLS))
    if found and (found.sha256, found.zero_shot.pictures_sha256, found.generalised.pictures_sha256) == expected:
        return found
    report(f"{path.name} on {name}")
    matcher = load(path, request.device)
    scored = [_scored(matcher, corpora[protocol], checksums[protocol]) for protocol in PROTOCOLS]
    row = ScoreboardRow(path.name, sha256, name, matcher.best_method, *scored)
    write_record(kept, row)
    return row


def _scored(matcher: Matcher, corpus: Corpus, checksum: str) -> ScoredProtocol:
    began = time.monotonic()
    best = matcher.best_method
    matrices = score_matrices(matcher, corpus, (best,))
    seconds = time.monotonic() - began
    figures = intervals(measure(corpus, matrices).per_query, "queries")
    plain, after = figures[best], figures.get(f"{best}+diffusion")
    return ScoredProtocol(
        queries=len(corpus.sketches),
        photos=len(corpus.photos),
        pictures_sha256=checksum,
        plain=Retrieval(plain["map_all"], plain["precision_100"]),
        diffused=None if after is None else Retrieval(after["map_all"], after["precision_100"]),
        map_200=plain["map_200"],
        precision_200=plain["precision_200"],
        seconds=round(seconds, 1),
    )
