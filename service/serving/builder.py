"""Runs builds that are started from the page in a separate process, so that searches continue meanwhile."""

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import urlsplit
from urllib.request import url2pathname

import platformdirs

from sketch_search import indexer
from sketch_search.model.engine import set_threads
from sketch_search.model.errors import UserError
from sketch_search.model.terminal import HomeUnknown, expand_home, printable, start_child
from sketch_search.service.engine import open_matcher
from sketch_search.service.errors import BuildRefused
from sketch_search.service.schemas.explain import BuildInfo, FoldersResponse
from sketch_search.service.settings import Settings, index_path

MAX_FOLDERS = 1000
# The niceness of a build: searches of the server come first.
_NICENESS = 5
_STOPPED = "The build stopped before it finished. Its work is kept: start it again to continue."


class Builder:
    """Starts builds of the settings' index, one at a time. Threads may share it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._removing = False
        self._failed: str | None = None

    def start(self, folder: str | None, excluded: Sequence[str] = (), included: Sequence[str] = ()) -> None:
        """Starts to add a folder of this machine to the index; with None, only updates the indexed ones.

        excluded, included: as for ``BuildRequest``.

        Raises BuildRefused if a build is already running, BadInvocation if the folder cannot be read or a pattern is
        refused, IndexRefused if the index is damaged or of another version.
        """
        folder = None if folder is None else _meant(folder)
        if folder is not None and "://" in folder:
            # The address is not repeated, since it may contain a password.
            raise indexer.BadInvocation(
                "The page can only index folders of this machine; for a server, run `sketch-search index URL`."
            )
        index = index_path(self._settings)
        try:
            named = () if folder is None else (expand_home(folder),)
            folders, added = ((), named) if indexer.indexed_folders(index) else (named, ())
            most = self._settings.max_photo_pixels
            request = indexer.BuildRequest(folders, added, excluded, included, max_pixels=most)
            request.check(index)
        except OSError as error:  # unknown home folder, or a name that is too long
            raise indexer.BadInvocation(str(error)) from error
        for path in named:
            _check_whole(path)
            if path.is_dir():  # and not an album, which is a ZIP file
                _subfolders(path)
        self.run(request)

    def run(self, request: indexer.BuildRequest) -> None:
        """Starts a build, in generations that can be searched meanwhile. Raises BuildRefused if one is running."""
        with self._lock:
            if self._running() or self._removing:
                raise BuildRefused("A build of the index is already running; the page shows its progress.")
            self._failed = None
            self._process = start_child(
                "-c", f"from {__name__} import main; main()", SKETCH_SEARCH_ZIP_ENCODING=self._settings.zip_encoding
            )
            index = index_path(self._settings)
            settings = self._settings.model_copy(update={"index": index, "api_key": None, "api_key_file": None})
            requests = cast(BinaryIO, self._process.stdin)
            with suppress(BrokenPipeError):  # if it has already ended, ``info`` says so
                pickle.dump((settings, request), requests)
                requests.flush()

    def remove(self, folder: str) -> indexer.RemovalReport:
        """Removes a folder from the index; its files stay. Raises BuildRefused during a build, BadInvocation."""
        with self._lock:
            if self._running() or self._removing:
                raise BuildRefused("A build of the index is running; remove the folder when it has finished.")
            self._removing = True
        # Without the lock, which ``info`` also takes.
        try:
            return indexer.remove([folder], index_path(self._settings))
        except indexer.IndexBusy as error:
            raise BuildRefused(str(error)) from error
        finally:
            self._removing = False

    def info(self) -> BuildInfo | None:
        with self._lock:
            running = self._running()
            state = indexer.read_progress(index_path(self._settings))
            if state is None and not running and self._failed is None:
                return None
            # While a build runs, the last state may still be that of an earlier build.
            known = {} if state is None or (running and state.phase in ("done", "stopped")) else state.model_dump()
            return BuildInfo.model_validate({**known, "running": running, "failed": self._failed})

    def _running(self) -> bool:
        if self._process is None or self._process.poll() is None:
            return self._process is not None
        with self._process as ended:
            output = b"" if ended.stdout is None else ended.stdout.read().strip()
            self._failed = None if ended.returncode == 0 else output.decode() or _STOPPED
        self._process = None
        return False

    def close(self) -> None:
        """Ends the running build, whose work is kept."""
        if self._process is not None:
            with self._process as ended:
                ended.terminate()
            self._process = None


def folders_in(folder: str | None) -> FoldersResponse:
    """Lists the folders in a folder, or in the user's pictures, without hidden ones. Raises BadInvocation."""
    try:
        path = _pictures() if folder is None else expand_home(_meant(folder))
    except HomeUnknown as error:
        raise indexer.BadInvocation(str(error)) from error
    _check_whole(path)
    above = None if path.parent == path else str(path.parent)
    return FoldersResponse(path=str(path), above=above, folders=tuple(_subfolders(path)[:MAX_FOLDERS]))


def _pictures() -> Path:
    """Returns the first with something in it: the platform's folder for pictures, home, or where this program began."""
    for folder in (platformdirs.user_pictures_path(), Path.home(), Path.cwd()):
        with suppress(OSError):
            if any(entry.name[0] != "." for entry in folder.iterdir()):
                return folder
    return Path.home()


def _check_whole(path: Path) -> None:
    if not path.is_absolute():
        raise indexer.BadInvocation(f"{path} is not a full path; write one such as {Path.home() / 'Pictures'}.")


def _subfolders(path: Path) -> list[str]:
    try:
        with os.scandir(path) as entries:
            names = [entry.name for entry in entries if entry.name[0] != "." and _is_folder(entry)]
    except OSError as error:
        raise indexer.BadInvocation(
            f"{path} cannot be read: {error.strerror}; grant permission, or choose another."
        ) from error
    # A name that is not valid text can be neither shown nor indexed.
    return sorted((name for name in names if name.encode(errors="replace").decode() == name), key=str.casefold)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # such as a link to itself
        return False


def _meant(pasted: str) -> str:
    """Parses a folder as file managers copy it: in quotes, or as a file:// URL."""
    folder = pasted.strip()
    if len(folder) > 1 and folder[0] == folder[-1] and folder[0] in "'\"":
        folder = folder[1:-1]
    try:
        folder = url2pathname(urlsplit(folder).path) if folder.startswith("file://") else folder
        os.fsencode(folder)
    except ValueError:
        folder = "\0"
    if "\0" in folder:
        raise indexer.BadInvocation("No folder can have this name; write it as the file manager shows it.")
    return folder


def main() -> None:
    """Runs the build described on standard input, and prints its error. It ends with the server, however that ends."""
    settings, request = pickle.load(sys.stdin.buffer)
    threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(_NICENESS)
    set_threads(settings.threads)
    try:
        report = indexer.build_growing(index_path(settings), request, open_matcher(settings))
        if report.kept:
            raise UserError(" ".join(report.kept))
    except UserError as error:
        print(printable(str(error)))
        sys.exit(1)
