"""Lets a long computation pause between its parts, for whoever runs it."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Protocol, TypeVar

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
