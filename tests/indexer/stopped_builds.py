"""Builds that are stopped from outside, in the process of the test."""

from sketch_search.indexer.building.progress import Progress
from sketch_search.model.decoding import Decoders, Job
from sketch_search.model.images import OpenedImage


class InThisProcess(Decoders):
    """Decodes where it is called, because starting a process takes longer than a small build."""

    def run(self, data: bytes, job: Job, *, quick: bool = False) -> OpenedImage:
        return job.run(data)


class Stopped(Exception):
    """Raised in a build to stop it."""


class StopAfter(Progress):
    def __init__(self, photos: int) -> None:
        super().__init__()
        self._left = photos

    def advance(self, done: int = 1, bad: int = 0, *, known: int = 0) -> None:
        super().advance(done, bad, known=known)
        self._left -= done
        if self._left <= 0:
            raise Stopped
