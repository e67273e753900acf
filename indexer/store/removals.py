"""What the user took out of the index while its files stay where they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Removal:
    """One rule: the file or folder ``path`` of a root ('' for all of it) is not shown, or is shown again after all.

    Attributes:
        root, path: as in the catalog. removed: False inside a folder that is removed, for what was added again.
    """

    root: int
    path: str
    removed: bool


class Removals:
    """All rules of an index. For each file the rule nearest to it holds: its own, its folder's, that one's folder's.

    Rules go by path and outlive the files: what appears later in a removed folder is not shown either.
    """

    def __init__(self, rules: Iterable[Removal] = ()) -> None:
        self._rules: Mapping[tuple[int, str], bool] = {(rule.root, rule.path): rule.removed for rule in rules}

    def hides(self, root: int, path: str) -> bool:
        """Whether a file or folder is removed."""
        if not self._rules:
            return False
        return next((self._rules[root, place] for place in _upwards(path) if (root, place) in self._rules), False)

    def removing(self, root: int, path: str) -> Removals:
        """These rules, and that ``path`` and all below it are removed."""
        return self._setting(root, path, True)

    def readmitting(self, root: int, path: str) -> Removals:
        """These rules, but that ``path`` and all below it are shown."""
        return self._setting(root, path, False)

    def _setting(self, root: int, path: str, removed: bool) -> Removals:
        rest = Removals(rule for rule in self if not (rule.root == root and path in _upwards(rule.path)))
        return rest if rest.hides(root, path) == removed else Removals([*rest, Removal(root, path, removed)])

    def renumbered(self, numbers: Sequence[int | None]) -> Removals:
        """The rules with roots counted anew, those of roots that are None left out."""
        moved = [(numbers[rule.root], rule) for rule in self]
        return Removals(Removal(number, rule.path, rule.removed) for number, rule in moved if number is not None)

    def __iter__(self) -> Iterator[Removal]:
        """By root and path."""
        return iter([Removal(*place, removed) for place, removed in sorted(self._rules.items())])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Removals) and self._rules == other._rules

    __hash__ = None  # type: ignore[assignment]


def _upwards(path: str) -> list[str]:
    """The path, its folder, that one's folder, and so on to the root, ''."""
    parts = path.split("/") if path else []
    return ["/".join(parts[:end]) for end in range(len(parts), -1, -1)]
