"""What a worker does with the files of a slice: read, decode, encode and embed them, and write their rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from indexer.building import Progress, Stager
from indexer.distributed.setup import Setup, opened
from indexer.distributed.slices import Attempt, SliceRecords, Slices, StagedSlice
from indexer.store import GalleryFile

# After so many workers have ended with a slice its files are read one by one; after so many have ended with one file,
# that file is left out. The first may have ended for a reason of its own, such as a machine that was switched off.
_MOST_DEATHS = 2
_KILLER = "the worker that read it ended, more than once; the next build tries again"


@dataclass(frozen=True)
class SliceWork:
    """The files of a slice, to be encoded."""

    setup: Setup
    number: int
    files: tuple[GalleryFile, ...]


@dataclass(frozen=True)
class SliceDone:
    """What came of it: how many files there are, how many of them cannot be indexed, and how many rows were made."""

    files: int
    bad: int
    rows: int


def encode_slice(work: SliceWork) -> SliceDone:
    """Encode a slice, and write it to the storage that all share. Raises BadInvocation, as ``opened`` does."""
    slices = Slices(work.setup.slices, work.setup.run)
    # A worker may end after it has written its slice and before it has said so.
    if not slices.is_done(work.number):
        networks = opened(work.setup)
        staged = StagedSlice()
        keeps_tokens = work.setup.origin.tokens > 1
        stager = Stager(work.setup.roots, networks.matcher, networks.embedder, staged, {}, keeps_tokens)
        # From here on, an end of this process counts as one with this slice.
        attempt = slices.begin(work.number)
        if attempt.deaths < _MOST_DEATHS:
            records: Iterable[GalleryFile] = stager.stage(work.files, work.setup.batch, Progress()).values()
        else:
            records = _one_by_one(work.files, stager, attempt)
        attempt.complete(SliceRecords(tuple(records), tuple(staged.contents)), staged)
    done = slices.records(slices.name(work.number))
    return SliceDone(len(done.files), sum(file.reason is not None for file in done.files), len(done.contents))


def _one_by_one(files: Iterable[GalleryFile], stager: Stager, attempt: Attempt) -> list[GalleryFile]:
    deaths = attempt.deaths_at()
    records: list[GalleryFile] = []
    for number, file in enumerate(files):
        if deaths.get(number, 0) >= _MOST_DEATHS:
            records.append(replace(file, stamp=None, reason=_KILLER))
        else:
            attempt.trying(number)
            records += stager.stage([file], 1, Progress()).values()
    return records
