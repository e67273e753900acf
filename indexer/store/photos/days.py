"""The days on which photos were taken, as their contents say."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

# How SQLite keeps that a content says no day: days are counted from 1, the first one of the year 1.
_NONE_SAID = 0
MOST_DAYS = date.max.toordinal()


@dataclass(frozen=True)
class DayTaken:
    """What the content of a photo says of the day on which it was taken: ``day``, or None where it says nothing."""

    day: date | None


def to_column(taken: DayTaken | None) -> int | None:
    """The day as a column of a table; None where nobody has looked for one."""
    if taken is None:
        return None
    return _NONE_SAID if taken.day is None else taken.day.toordinal()


def from_column(number: int | None) -> DayTaken | None:
    """What a column holds, which has at most MOST_DAYS."""
    if number is None:
        return None
    return DayTaken(None if number == _NONE_SAID else date.fromordinal(number))
