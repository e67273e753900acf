"""Defines roots, the folders of photos that the user named, and finds a file among them."""

import os
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from sketch_search.indexer.errors import BadInvocation
from sketch_search.indexer.store.files import is_unicode, spellings
from sketch_search.indexer.store.folders import Address, Album, Folder, LocalFolder
from sketch_search.indexer.store.location import is_index
from sketch_search.indexer.store.remote import RemoteFolder
from sketch_search.model.terminal import HomeUnknown, expand_home, resolve

# The place of a file or folder in the gallery: the number of its root, from 0, and its path in the root, with '/'. The
# path '' is the root itself.
FileKey = tuple[int, str]
# The most roots: each is compared with all others.
MAX_ROOTS = 1000


class Root(BaseModel):
    """A folder of the gallery, by its absolute path or its URL. Paths begin with its name if there are several."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    path: str

    @cached_property
    def folder(self) -> Folder:
        return folder_at(self.path)


def folder_of(address: Address) -> Folder:
    """Makes the folder of a user's URL or path. Raises HomeUnknown; BadInvocation."""
    named = os.fspath(address)
    return RemoteFolder.at(named) if "://" in named else folder_at(str(resolve(expand_home(named))))


def folder_at(address: str) -> Folder:
    """Makes the folder at an address from ``str`` of a folder. A ``.zip`` that is not a folder is an album."""
    if "://" in address:
        return RemoteFolder(address)
    path = Path(address)
    return Album(path) if path.suffix.lower() == ".zip" and not path.is_dir() else LocalFolder(path)


def resolve_roots(folders: Sequence[Address | Folder], index: Path, current: Sequence[Root] = ()) -> tuple[Root, ...]:
    """Checks the folders and names each; those of the index keep name and order, for readers elsewhere.

    Raises BadInvocation: one is missing, not a folder, not UTF-8, or lies in another or in the index.
    """
    if len(folders) > MAX_ROOTS:
        raise BadInvocation(f"an index has at most {MAX_ROOTS} folders; name a folder that holds several of them.")
    inside = LocalFolder(resolve(index))
    known = {root.folder for root in current}
    checked: list[Folder] = []
    for address in folders:
        folder = address if isinstance(address, Folder) else folder_of(address)
        # An indexed folder may be on a disk that is not connected now. Its photos stay, and a listing says so.
        if folder not in known and (problem := folder.problem()) is not None:
            raise BadInvocation(f"{address} {problem}{'' if folder.remote else '; name a folder of photos'}.")
        # The manifest is UTF-8, and so are the answers of searches.
        if not is_unicode(str(folder)):
            reads = sys.getfilesystemencoding()
            remedy = "rename the folder to index it"
            if reads != "utf-8":
                remedy = f"Python reads names as {reads} here: unset PYTHONUTF8, or set LC_ALL=C.UTF-8"
            raise BadInvocation(f"{address}: its path is not valid UTF-8; {remedy}.")
        if folder not in known and type(folder) is LocalFolder and is_index(_names_in(folder.path)):
            raise BadInvocation(f"{address} holds an index and no photos; name a folder of photos.")
        if inside.holds(folder):
            raise BadInvocation(f"{address} lies inside the index {inside}; name the folder that holds the photos.")
        for other in checked:
            if other.holds(folder) or folder.holds(other):
                outer, inner = (folder, other) if folder.holds(other) else (other, folder)
                raise BadInvocation(_overlap(outer, inner, known))
        checked.append(folder)
    roots = [root for root in current if root.folder in checked]
    taken = {root.name for root in roots}
    for folder in (folder for folder in checked if folder not in known):
        name, count = folder.name, 1
        while name in taken:
            count += 1
            name = f"{folder.name}-{count}"
        taken.add(name)
        roots.append(Root(name=name, path=str(folder)))
    return tuple(roots)


def _names_in(path: Path) -> list[str]:
    with suppress(OSError):  # the listing says so
        return os.listdir(path)
    return []


def _overlap(outer: Folder, inner: Folder, known: Collection[Folder]) -> str:
    if outer == inner:
        return f"{outer} and {inner} are the same folder; name it only once."
    if inner in known and outer not in known:
        return (
            f"{outer} and {inner}, which is already indexed, overlap; to replace it by the outer one, list that and "
            "every other folder to keep with `sketch-search index build`."
        )
    return f"{outer} and {inner} overlap; name only the outer one."


def locate(address: Address, roots: Sequence[Root]) -> FileKey | None:
    """Finds the key of a path on disk; None if the path is below none of the roots."""
    places = [(number, root.folder.path_of(os.fspath(address))) for number, root in enumerate(roots)]
    keys = [(number, path) for number, path in places if path is not None]
    # An album may lie in a folder of the gallery. Then the path means a file in the album.
    return min(keys, key=lambda key: len(key[1]), default=None)


def key_meant(target: str, known: Callable[[FileKey], bool], roots: Sequence[Root]) -> FileKey | None:
    """Finds the file or folder that a user means, as shown or on disk; None for none. Raises BadInvocation."""
    # The empty path is the shown path of a single root. "/" does not mean the whole gallery.
    path = target.rstrip("/")
    names = [root.name for root in roots]
    keys_shown = (key_shown(names, spelling) for spelling in spellings(path) if path)
    shown = next((key for key in keys_shown if key is not None and known(key)), None)
    here = None
    with suppress(HomeUnknown):
        here = expand_home(target)
    on_disk = None
    if here is not None:
        places = [key for spelling in spellings(target) if (key := locate(spelling, roots)) is not None]
        on_disk = next((key for key in places if known(key)), next(iter(places), None))
    # The path of an existing file means that file, whether the index has it or not.
    keys = {address_at(key, roots): key for key in (shown, on_disk) if key is not None and known(key)}
    choices = [*keys]
    if shown is not None and on_disk != shown and here is not None and os.path.lexists(here):
        choices = [address_at(shown, roots), os.path.abspath(here)]
    if len(choices) > 1:
        raise BadInvocation(f"{target} may be {' or '.join(choices)}; name one of them by its whole path.")
    return keys[choices[0]] if choices else None


def address_at(key: FileKey, roots: Sequence[Root]) -> str:
    """Returns the path on this machine, or the URL, of a file or folder."""
    root, path = key
    return roots[root].folder.address_of(path)


def with_folders(path: str) -> list[str]:
    """Lists the root, '', then each folder around a file or folder from the outermost, then the file itself."""
    parts = path.split("/") if path else []
    return ["/".join(parts[:end]) for end in range(len(parts) + 1)]


def key_shown(names: Sequence[str], shown: str) -> FileKey | None:
    """Finds the key of a shown path; None if it does not begin with the name of a root."""
    if len(names) == 1:
        return 0, shown
    name, _, inside = shown.partition("/")
    return (names.index(name), inside) if name in names else None


def shown_path(names: Sequence[str], root: int, path: str) -> str:
    """Returns a photo's path as users see it. It begins with its root's name if there are several roots."""
    return f"{names[root]}/{path}" if len(names) > 1 else path
