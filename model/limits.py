"""Limits and choices of searches and pictures, apart from all else, and pauses between parts of a long computation."""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, TypeVar

from sketch_search.model.errors import ImageTooLarge

#: The system that searches: this project's own, or the two-stage report's and nothing else.
System: TypeAlias = Literal["default", "two-stage"]
#: Whether photos must show things where they were drawn; "auto": if regions are kept.
Places: TypeAlias = Literal["auto", "yes", "no"]
#: The most variants of a sketch: one of each kind.
MAX_VARIANTS = 3
#: Clusters that are opened for each part of a query: some 7,000 of 12,000 photos, and 64,000 of a million.
NPROBE = 64
#: The most points of a drawing's strokes, and how many things they may be numbered by.
MAX_POINTS, MAX_NUMBERS = 100_000, 1000
#: The most pixels that are decoded of one picture: 384 MiB of RGB.
MAX_PIXELS = 1 << 27
#: The year of the first photo, from which on days are read and filtered by.
FIRST_YEAR = 1826


@dataclass(frozen=True)
class Allowance:
    """The most pixels that are decoded of a picture. ``declare`` is told before how many its file declares."""

    pixels: int = MAX_PIXELS
    declare: Callable[[int], None] = lambda pixels: None

    def admit(self, width: int, height: int) -> None:
        """Raises ImageTooLarge."""
        if width * height > self.pixels:
            raise ImageTooLarge.of(width, height, self.pixels)
        self.declare(width * height)


T = TypeVar("T")

#: What a pause does in this thread; nothing by default.
at_pauses: ContextVar[Callable[[], None]] = ContextVar("at_pauses")


def pause() -> None:
    """Does what whoever runs this computation wants between two of its parts. It may raise to end it."""
    if (action := at_pauses.get(None)) is not None:
        action()


class Compute(Protocol):
    """Runs a step that computes, and returns its result."""

    def __call__(self, step: Callable[[], T], /) -> T: ...


def compute_at_once(step: Callable[[], T], /) -> T:
    return step()
