"""Lets a long computation pause between its parts, for whoever runs it."""

from collections.abc import Callable
from contextvars import ContextVar

#: What a pause does in this thread; nothing by default.
at_pauses: ContextVar[Callable[[], None]] = ContextVar("at_pauses")


def pause() -> None:
    """Does what whoever runs this computation wants between two of its parts. It may raise to end it."""
    if (action := at_pauses.get(None)) is not None:
        action()
