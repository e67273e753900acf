"""What the user has removed from the index. The files stay where they are, and builds pass over them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Removal:
    """One rule: a file or folder is removed, or was added again.

    Attributes:
        root, path: which file or folder, as in the catalog; path '' stands for the whole root.
        removed: True where it is removed. False where it lies in a removed folder and was added again.
    """

    root: int
    path: str
    removed: bool


class Removals:
    """All rules of an index.

    For a file the nearest rule holds: its own, else its folder's, else that of the folder around it, and so on. Rules
    go by path and stay when the files go: a file that comes later into a removed folder is not shown either.
    """

    def __init__(self, rules: Iterable[Removal] = ()) -> None:
        self._rules: Mapping[tuple[int, str], bool] = {(rule.root, rule.path): rule.removed for rule in rules}

    def hides(self, root: int, path: str) -> bool:
        """Whether a file or folder is removed."""
        if not self._rules:
            return False
        return next((self._rules[root, around] for around in _upwards(path) if (root, around) in self._rules), False)

    def removing(self, root: int, path: str) -> Removals:
        """These rules, changed so that ``path`` and all below it are removed."""
        return self._changed(root, path, True)

    def readmitting(self, root: int, path: str) -> Removals:
        """These rules, changed so that ``path`` and all below it are shown."""
        return self._changed(root, path, False)

    def _changed(self, root: int, path: str, removed: bool) -> Removals:
        others = Removals(rule for rule in self if not (rule.root == root and path in _upwards(rule.path)))
        return others if others.hides(root, path) == removed else Removals([*others, Removal(root, path, removed)])

    def renumbered(self, numbers: Sequence[int | None]) -> Removals:
        """The rules with new numbers of the roots: ``numbers[old]`` is the new one, None for a root that leaves."""
        moved = [(numbers[rule.root], rule) for rule in self]
        return Removals(Removal(number, rule.path, rule.removed) for number, rule in moved if number is not None)

    def __iter__(self) -> Iterator[Removal]:
        """By root and path."""
        return iter([Removal(root, path, removed) for (root, path), removed in sorted(self._rules.items())])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Removals) and self._rules == other._rules

    __hash__ = None  # type: ignore[assignment]


def _upwards(path: str) -> list[str]:
    """The path itself, its folder, the folder around that, and so on up to the root, ''."""
    parts = path.split("/") if path else []
    return ["/".join(parts[:end]) for end in range(len(parts), -1, -1)]
