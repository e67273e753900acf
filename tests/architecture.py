"""The map of the rooms in docs/architecture.md, drawn from the imports of the code: `python -m tests.architecture`."""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import grimp

from tests.blocks import PageError, rewrite_page

CHECKOUT = Path(__file__).parents[1]
PAGE = CHECKOUT / "docs" / "architecture.md"
PACKAGES = ("service", "indexer", "model", "weights")
# Nearly every room calls it; its arrows would hide the others.
NOT_DRAWN = "errors"

Calls = Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Room:
    """A folder or a module right inside a package.

    Attributes:
        package, name: as "model" and "network".
        file: its source, or that of its ``__init__``.
        purpose: the first paragraph of its docstring.
        modules: the modules and folders inside, sorted; none where the room is a single module.
    """

    package: str
    name: str
    file: Path
    purpose: str
    modules: tuple[str, ...]

    @property
    def path(self) -> str:
        """From the checkout, as "model/network" or "model/matcher.py"."""
        place = self.file if self.file.name != "__init__.py" else self.file.parent
        return place.relative_to(CHECKOUT).as_posix()


def read_rooms(package: str) -> tuple[Room, ...]:
    """The rooms of a package, by name; ``__init__`` and ``__main__`` of the package itself left out."""
    folder = CHECKOUT / package
    found = [path for path in folder.glob("*.py") if not path.name.startswith("__")]
    found += folder.glob("*/__init__.py")
    return tuple(sorted((_room(package, path) for path in found), key=lambda room: room.name))


def _room(package: str, path: Path) -> Room:
    inside = path.parent if path.name == "__init__.py" else None
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    modules: list[str] = []
    if inside is not None:
        modules = [module.stem for module in inside.glob("*.py") if module != path]
        modules += [f"{child.name}/" for child in inside.iterdir() if (child / "__init__.py").exists()]
    name = path.stem if inside is None else inside.name
    purpose = " ".join(docstring.split("\n\n")[0].split())
    return Room(package, name, path, purpose, tuple(sorted(modules)))


def read_calls() -> Calls:
    """Which rooms each room imports, all as "model.network"; a package's own ``__init__`` is "model"."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    calls: dict[str, set[str]] = {}
    for module in graph.modules:
        calls.setdefault(_room_of(module), set()).update(map(_room_of, graph.find_modules_directly_imported_by(module)))
    return {room: frozenset(called - {room}) for room, called in calls.items()}


def _room_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def levels(rooms: Sequence[Room], calls: Calls) -> dict[str, int]:
    """By the room's name, how long the longest chain of calls within the package below it is."""
    inside = {room.name: _calls_inside(room, calls) for room in rooms}
    known: dict[str, int] = {}

    def level(name: str) -> int:
        if name not in known:
            known[name] = 1 + max((level(called) for called in inside[name]), default=-1)
        return known[name]

    return {name: level(name) for name in inside}


def arrows(rooms: Sequence[Room], calls: Calls) -> tuple[tuple[str, str], ...]:
    """The calls within a package that do not follow from others: where a calls b and b calls c, a to c is left out."""
    inside = {room.name: _calls_inside(room, calls) for room in rooms}
    below: dict[str, frozenset[str]] = {}

    def all_below(name: str) -> frozenset[str]:
        if name not in below:
            below[name] = inside[name].union(*map(all_below, inside[name]))
        return below[name]

    return tuple(
        (name, called)
        for name in sorted(inside)
        for called in sorted(inside[name])
        if not any(called in all_below(other) for other in inside[name])
    )


def _calls_inside(room: Room, calls: Calls) -> frozenset[str]:
    called = calls.get(f"{room.package}.{room.name}", frozenset())
    prefix = f"{room.package}."
    return frozenset(name.removeprefix(prefix) for name in called if name.startswith(prefix)) - {NOT_DRAWN, "__main__"}


def drawing(package: str, rooms: Sequence[Room], calls: Calls) -> str:
    """A Mermaid graph of a package's rooms, the topmost first."""
    level = levels(rooms, calls)
    drawn = sorted((room.name for room in rooms if room.name != NOT_DRAWN), key=lambda name: (-level[name], name))
    lines = ["```mermaid", "graph TD", *(f'    {package}_{name}["{name}"]' for name in drawn)]
    lines += [f"    {package}_{caller} --> {package}_{called}" for caller, called in arrows(rooms, calls)]
    return "\n".join([*lines, "```"])


def table(rooms: Sequence[Room], calls: Calls) -> str:
    """A row for each room, the topmost first: what it is for, the modules inside, and what it calls."""
    level = levels(rooms, calls)
    lines = ["| room | what it is for | modules | calls |", "| --- | --- | --- | --- |"]
    for room in sorted(rooms, key=lambda room: (-level[room.name], room.name)):
        called = calls.get(f"{room.package}.{room.name}", frozenset()) - {f"{room.package}.{NOT_DRAWN}", room.package}
        named = sorted(name.removeprefix(f"{room.package}.") for name in called)
        cells = [
            f"[{room.path}](../{room.path})",
            room.purpose.replace("`", ""),
            *map(", ".join, (room.modules, named)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def blocks() -> dict[str, str]:
    """The blocks of the page, by name."""
    calls = read_calls()
    texts: dict[str, str] = {}
    for package in PACKAGES:
        rooms = read_rooms(package)
        if rooms:
            texts[f"Rooms of {package}"] = f"{drawing(package, rooms, calls)}\n\n{table(rooms, calls)}"
    return texts


def summary() -> str:
    """A line for each package: how many rooms it has, how many modules the fullest of them, and how many calls."""
    calls = read_calls()
    lines = []
    for package in PACKAGES:
        if not (rooms := read_rooms(package)):
            continue
        fullest = max(len(room.modules) for room in rooms)
        between = sum(len(_calls_inside(room, calls)) for room in rooms)
        lines.append(f"{package}: {len(rooms)} rooms of at most {fullest} modules, {between} calls between rooms")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m tests.architecture", description=__doc__)
    made.add_argument("--page", type=Path, default=PAGE, metavar="FILE", help="the page to write to (%(default)s)")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the blocks and print the summary; 2 with a sentence where the page has no place for a block."""
    options = parser().parse_args(arguments)
    try:
        rewrite_page(options.page, blocks())
    except PageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(summary())
    return 0


if __name__ == "__main__":
    sys.exit(main())
