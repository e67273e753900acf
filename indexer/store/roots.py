"""Roots: the folders of photos that the user named, and where a file is among them."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from indexer.errors import BadInvocation
from indexer.store.files import is_unicode, text_of_name
from model.terminal import HomeUnknown, expanded, resolved

# A file or folder of the gallery: the number of its root, from 0, and its path in it, with '/'; '' is the root itself.
FileKey = tuple[int, str]


@dataclass(frozen=True)
class Root:
    """One folder of the gallery.

    Attributes:
        name: what paths begin with where there are several roots. path: the folder's absolute path.
    """

    name: str
    path: Path


def resolve_roots(folders: Sequence[Path], index: Path, live: Sequence[Root] = ()) -> tuple[Root, ...]:
    """Check the folders and give each a name of its own.

    Args:
        folders: as the user names them. index: the index's folder.
        live: the roots that the index has. Those that are named again keep their names and their order, because readers
            may say by the order where the roots are on another machine. New ones come after them.

    Raises:
        BadInvocation: no folder is given; a new one is missing, is no folder, or has a path that is not valid UTF-8; or
            one lies in another or in the index.
    """
    if not folders:
        raise BadInvocation("name at least one folder of photos.")
    index = resolved(index)
    known = {root.path for root in live}
    paths: list[Path] = []
    for folder in folders:
        path = resolved(expanded(folder))
        # One that the index has may be on a disk that is not there today. Its photos stay, and a listing says so.
        if not path.is_dir() and path not in known:
            problem = "is not a folder" if path.exists() else "does not exist"
            raise BadInvocation(f"{folder} {problem}; name a folder of photos.")
        # The manifest is UTF-8, and so is what searches answer.
        if not is_unicode(str(path)):
            raise BadInvocation(f"{folder}: its path is not valid UTF-8; rename the folder to have it indexed.")
        if path.is_relative_to(index):
            raise BadInvocation(f"{folder} lies inside the index {index}; name the folder that holds the photos.")
        for other in paths:
            if path.is_relative_to(other) or other.is_relative_to(path):
                outer, inner = (path, other) if other.is_relative_to(path) else (other, path)
                raise BadInvocation(_overlap(outer, inner, known))
        paths.append(path)
    roots = [root for root in live if root.path in paths]
    taken = {root.name for root in roots}
    for path in paths:
        if path in {root.path for root in roots}:
            continue
        stem = path.name or "root"
        name, count = stem, 1
        while name in taken:
            count += 1
            name = f"{stem}-{count}"
        taken.add(name)
        roots.append(Root(name, path))
    return tuple(roots)


def _overlap(outer: Path, inner: Path, known: Collection[Path]) -> str:
    if outer == inner:
        return f"{outer} and {inner} overlap: they are the same folder; name it once."
    if inner in known and outer not in known:
        return (
            f"{outer} and {inner}, which the index has, overlap; to have the outer one in its place, name it, and "
            "every other folder that is to stay, with `sketch-search index build`."
        )
    return f"{outer} and {inner} overlap; name only the outer one."


def locate(path: Path, roots: Sequence[Root]) -> FileKey | None:
    """Where a path on disk is in the gallery; None where it is below none of the roots."""
    # The last part is not followed where it is a link, because the index holds no links.
    full = Path(os.path.abspath(expanded(path)))
    full = resolved(full.parent) / full.name
    for number, root in enumerate(roots):
        if full.is_relative_to(root.path):
            inside = full.relative_to(root.path).as_posix()
            return number, "" if inside == "." else text_of_name(inside)
    return None


def place_meant(
    target: str, shown: FileKey | None, known: Callable[[FileKey], bool], roots: Sequence[Root]
) -> FileKey | None:
    """The file or folder of the gallery that a path means: as results show it, or on disk. None if it means none.

    Args:
        target: what the user wrote. shown: the place that results show by this path, if there is one.
        known: whether the index has a place.

    Raises:
        BadInvocation: it may mean one or another.
    """
    here = None
    with suppress(HomeUnknown):
        here = expanded(target)
    on_disk = locate(here, roots) if here is not None else None
    # A path that leads to a file here means that file, whether the index has it or not.
    places = {_whole(place, roots): place for place in (shown, on_disk) if place is not None and known(place)}
    choices = [*places]
    if shown is not None and on_disk != shown and here is not None and os.path.lexists(here):
        choices = [_whole(shown, roots), os.path.abspath(here)]
    if len(choices) > 1:
        raise BadInvocation(f"{target} may be {' or '.join(choices)}; name one of them by its whole path.")
    return places[choices[0]] if choices else None


def _whole(place: FileKey, roots: Sequence[Root]) -> str:
    """Where it is on disk."""
    root, path = place
    return str(roots[root].path / path)


def shown_path(names: Sequence[str], root: int, path: str) -> str:
    """A photo's path as users see it: it begins with its root's name where there are several roots.

    Args:
        names: the roots' names. root, path: of the file, as in the catalog.
    """
    return f"{names[root]}/{path}" if len(names) > 1 else path
