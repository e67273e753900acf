"""Parses addresses of photos, and handles the folder of an index: its current generation, and the lock of a writer."""

import os
import re
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

import platformdirs
from pydantic import BaseModel, ConfigDict

from sketch_search.indexer.errors import BadInvocation, IndexBusy, IndexDamaged, IndexRefused, IndexUnwritable
from sketch_search.indexer.store.files import is_unicode, spellings, sync_folder, write_atomically
from sketch_search.indexer.store.folders import Address, Album, LocalFolder
from sketch_search.indexer.store.remote import Folder, RemoteFolder
from sketch_search.model.files import read_regular
from sketch_search.model.terminal import HomeUnknown, expand_home, resolve

_GENERATION = re.compile(r"g\d{6,}")
# The name of a segment ends with the beginning of the key of its build.
_KEY_DIGITS = 8
_SEGMENT = re.compile(rf"s\d{{6,}}-[0-9a-f]{{{_KEY_DIGITS}}}")
_BUILDING = ".building-"
#: The manifest in the folder of an index in shards, and how the folders begin in which its builds work.
SHARDS_FILE = "shards.json"
SLICES = ".slices-"
#: The folder in an index in which a server keeps thumbnails.
THUMBNAILS = "thumbnails"
#: A file in the folder of each of its shards.
SHARD_MARK = "SHARD"
_MAX_NAME = 1024


def default_index_path() -> Path:
    """Returns ``SKETCH_SEARCH_INDEX``, or a folder in the platform's data folder. Raises BadInvocation: no home."""
    if path := os.environ.get("SKETCH_SEARCH_INDEX"):
        return expand_home(path)
    try:
        return platformdirs.user_data_path("sketch-search", appauthor=False) / "index"
    except RuntimeError as error:
        raise BadInvocation(
            "there is no home folder for the index; name a folder with --index or SKETCH_SEARCH_INDEX, or set HOME."
        ) from error


def current_stamp(index: Path) -> tuple[int, int, int] | None:
    """Returns a value that changes with the current generation, by one ``stat``; None if there is none."""
    # CURRENT is then replaced, also if an index is deleted and built again in the same folder.
    try:
        status = (expand_home(index) / "CURRENT").stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def first_build_has_begun(index: Path) -> bool:
    """Returns True if a build is running in this folder, or was stopped there. For folders without a finished build."""
    return any(index.glob(f"{_BUILDING}*"))


def no_index(path: Path) -> IndexRefused:
    if (path / SHARDS_FILE).exists():
        return IndexRefused(f"{path} holds an index in shards; name one of its shards, such as {path / 'shard-0000'}.")
    if first_build_has_begun(path):
        return IndexRefused(
            f"the first build of {path} has not finished; if it was stopped, `sketch-search index FOLDER` with the "
            "same folder continues it."
        )
    return IndexRefused(f"there is no index at {path}; run `sketch-search index build FOLDER` first.")


class IndexFolder:
    """The paths inside one index folder. Making the object touches nothing on disk."""

    def __init__(self, path: Path) -> None:
        self.path = expand_home(path).absolute()
        self.segments = self.path / "segments"
        self.progress = self.path / "progress.json"
        self.damaged = self.path / "damaged.json"

    def current(self) -> str | None:
        """Reads the current generation's name; None before a build. Raises IndexRefused if it is damaged."""
        try:
            name = read_regular(self.path / "CURRENT", _MAX_NAME).decode(errors="replace").strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise IndexRefused(f"{self.path} cannot be read: {error.strerror}; check its permissions.") from error
        if not _GENERATION.fullmatch(name):
            raise IndexDamaged(
                f"{self.path / 'CURRENT'} does not name a generation; delete {self.path} and build again."
            )
        return name

    def building(self, key: str) -> Path:
        return self.path / f"{_BUILDING}{key}"

    def create(self) -> None:
        """Makes the folder. Raises BadInvocation: it is a file, or contains other things than an index."""
        names = names_in(self.path)
        if SHARDS_FILE in names or any(name.startswith(SLICES) for name in names):
            raise BadInvocation(
                f"{self.path} holds an index in shards; update it with --ray, or name another folder with --index."
            )
        if not names & {"CURRENT", "segments", ".lock", "progress.json"}:
            check_ours(self.path, {name for name in names if not name.startswith(_BUILDING)})
        self.segments.mkdir(exist_ok=True)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Makes the folder and holds its lock. Raises IndexBusy; IndexUnwritable; BadInvocation, also for a shard."""
        if (self.path / SHARD_MARK).exists():
            raise BadInvocation(
                f"{self.path} is a shard, with only part of the photos; update all shards with --ray, "
                f"and --index {self.path.parent}."
            )
        with refuse_if_unwritable(self.path):
            self.create()
        with hold_lock(self.path):
            yield

    def generations(self) -> list[str]:
        """Lists the names of all complete generations, current or not."""
        return [entry.name for entry in self.path.iterdir() if _GENERATION.fullmatch(entry.name)]

    def next_number(self) -> int:
        """Returns a number above those of all generations, of which the newest need not be the current one."""
        return 1 + max((int(name[1:]) for name in self.generations()), default=0)

    def make_current(self, name: str) -> None:
        with refuse_if_unwritable(self.path):
            write_atomically(self.path / "CURRENT", f"{name}\n".encode())

    def clean(self, generations: set[str], segments: set[str], building: set[str] | None) -> None:
        """Deletes what is not named, but no links; building: keys of builds whose segments stay, None for all."""
        with refuse_if_unwritable(self.path):
            builds = {path.name.removeprefix(_BUILDING): path for path in self.path.glob(f"{_BUILDING}*")}
            growing = {key[:_KEY_DIGITS] for key in (builds if building is None else building)}
            leaving = [path for key, path in builds.items() if building is not None and key not in building]
            leaving += [self.path / name for name in self.generations() if name not in generations]
            for path in self.segments.iterdir():
                if _SEGMENT.fullmatch(path.name) and path.name[-_KEY_DIGITS:] not in growing:
                    leaving += [] if path.name in segments else [path]
            for path in filter(is_folder, sorted(leaving)):
                # Windows does not delete files in use; the next build tries again.
                shutil.rmtree(path, ignore_errors=os.name == "nt")
            sync_folder(self.path)


def is_folder(path: Path) -> bool:
    """Returns True for a folder, and not for a link to one: the index has none, so that a link is not ours."""
    return path.is_dir() and not path.is_symlink()


def is_index(names: Collection[str]) -> bool:
    """Returns True if these are the names in an index, also one in shards."""
    return {"CURRENT", "segments"}.issubset(names) or {SHARDS_FILE, "shard-0000"}.issubset(names)


def names_in(folder: Path) -> set[str]:
    """Lists the names in a folder, which is made if it does not exist. Raises BadInvocation: it is a file."""
    if folder.exists() and not folder.is_dir():
        raise BadInvocation(f"{folder} is a file; name a folder with --index.")
    folder.mkdir(parents=True, exist_ok=True)
    return {entry.name for entry in folder.iterdir()}


def check_ours(folder: Path, others: set[str]) -> None:
    """Raises BadInvocation if a folder contains other things than an index, so that a build would mix files."""
    if others:
        raise BadInvocation(f"{folder} holds files that are not an index; name another folder with --index.")


@contextmanager
def hold_lock(folder: Path) -> Iterator[None]:
    """Holds the lock of an index. Raises IndexBusy; IndexUnwritable.

    Some network drives refuse locks. There, a file that only one process can create is the lock; one that a killed
    process on this machine has left does not count.
    """
    # Imported late: searches need no lock.
    from filelock import FileLock, SoftFileLock, Timeout

    with refuse_if_unwritable(folder):
        try:
            try:
                lock = FileLock(folder / ".lock").acquire(timeout=0)
            except (Timeout, OSError):
                if _gives_locks(folder):
                    raise
                lock = SoftFileLock(folder / ".lock-file").acquire(timeout=0)
        except Timeout as error:
            raise IndexBusy(
                f"another build is writing {folder}; wait for it to end, or name another folder with --index."
            ) from error
    with lock:
        yield


def _gives_locks(folder: Path) -> bool:
    """Tries to lock a file that nobody else knows. Raises OSError if the folder cannot be written."""
    from filelock import FileLock, Timeout

    descriptor, name = tempfile.mkstemp(prefix=".lock-", dir=folder)
    os.close(descriptor)
    try:
        FileLock(name).acquire(timeout=0).lock.release()
    except (Timeout, OSError):
        return False
    finally:
        Path(name).unlink(missing_ok=True)
    return True


@contextmanager
def refuse_if_unwritable(folder: Path) -> Iterator[None]:
    """Raises IndexUnwritable, with a message, if the block cannot write a file of the index in ``folder``."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        path = (isinstance(error, OSError) and error.filename) or folder
        raise IndexUnwritable(
            f"{path} cannot be written: {reason}; free space or grant permission, and run the same command again: it "
            "continues from here. The old index stays in use."
        ) from error


def segment_name(number: int, key: str) -> str:
    """Names the segment of the build ``key`` that begins while generation ``number`` is the next one."""
    return f"s{number:06d}-{key[:_KEY_DIGITS]}"


def generation_name(number: int) -> str:
    return f"g{number:06d}"


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


def resolve_roots(folders: Sequence["Address | Folder"], index: Path, current: Sequence[Root] = ()) -> tuple[Root, ...]:
    """Checks the folders and names each; those of the index keep name and order, for readers elsewhere.

    Raises BadInvocation: one is missing, not a folder, not UTF-8, or lies in another or in the index.
    """
    if len(folders) > MAX_ROOTS:
        raise BadInvocation(f"an index has at most {MAX_ROOTS} folders; name a folder that holds several of them.")
    inside = LocalFolder(resolve(index))
    known = {root.folder for root in current}
    checked: list[Folder] = []
    for address in folders:
        folder = address if isinstance(address, LocalFolder | RemoteFolder) else folder_of(address)
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
    path_here = None
    with suppress(HomeUnknown):
        path_here = expand_home(target)
    on_disk = None
    if path_here is not None:
        places = [key for spelling in spellings(target) if (key := locate(spelling, roots)) is not None]
        on_disk = next((key for key in places if known(key)), next(iter(places), None))
    # The path of an existing file means that file, whether the index has it or not.
    keys = {address_at(key, roots): key for key in (shown, on_disk) if key is not None and known(key)}
    choices = [*keys]
    if shown is not None and on_disk != shown and path_here is not None and os.path.lexists(path_here):
        choices = [address_at(shown, roots), os.path.abspath(path_here)]
    if len(choices) > 1:
        raise BadInvocation(f"{target} may be {' or '.join(choices)}; name one of them by its whole path.")
    if not choices and target.startswith("./"):
        # People write ./17 to mean a file and no id, in whatever folder they are.
        return key_meant(target[2:], known, roots)
    return keys[choices[0]] if choices else None


def address_at(key: FileKey, roots: Sequence[Root]) -> str:
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
