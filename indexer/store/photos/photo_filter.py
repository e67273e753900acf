"""A filter of photos: those in some folders, of some days."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from indexer.store.roots import FileKey

_NS = 10**9
# From this year on, all systems know the time of this place.
_LOCAL_SINCE = 1971


@dataclass(frozen=True)
class PhotoFilter:
    """What the files of photos must be like. Only a file that is all of it counts.

    Attributes:
        folders: paths as results show them, with '/': a file must be below one of them; none for all files.
        after, before: the first and the last day on which it may have been taken, as the file says; where it does not
            say, on which it may have been changed for the last time, by the clock of this place. None for no bound.
    """

    folders: tuple[str, ...] = ()
    after: date | None = None
    before: date | None = None

    def folder_keys(self, names: Sequence[str]) -> list[FileKey] | None:
        """Where the folders are among the roots with these names, but for those in no root; None for all files."""
        if not self.folders:
            return None
        if len(names) == 1:
            return [(0, folder) for folder in self.folders]
        split = [folder.partition("/") for folder in self.folders]
        return [(names.index(name), inside) for name, _, inside in split if name in names]

    @property
    def since(self) -> int | None:
        """The first time of last change that passes, in ns since 1970; None for no bound."""
        return None if self.after is None else _begin(self.after)

    @property
    def until(self) -> int | None:
        """The first time of last change after those that pass, in ns since 1970; None for no bound."""
        return None if self.before is None else _begin(self.before + timedelta(days=1))


def _begin(day: date) -> int:
    """The ns since 1970 at which a day begins here."""
    midnight = datetime.combine(day, time.min)
    if day.year < _LOCAL_SINCE:
        midnight = midnight.replace(tzinfo=UTC)
    return int(midnight.timestamp()) * _NS
