"""Announces a running server's address and token in its index, in a file only its user can read, locked meanwhile."""

import hashlib
import json
import os
import re
import secrets
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import platformdirs
from pydantic import BaseModel, ConfigDict, ValidationError

from sketch_search.model.files import open_regular
from sketch_search.model.terminal import expand_home
from sketch_search.service.settings import Settings

NAME = "server.json"
_MAX_BYTES = 1 << 16
# The settings that change no answer to a search.
_UNANSWERED = {"host", "port", "threads", "allow_build", "api_key", "api_key_file", "rate_limit", "metrics_port"}
_UNANSWERED |= {"log_format", "cors_origins", "frame_ancestors", "allowed_hosts", "max_upload_bytes", "upload_seconds"}
_UNANSWERED |= {"queue", "queue_seconds"}
# Seconds between two checks for a missing index.
_AGAIN_SECONDS = 0.5


class ServerAddress(BaseModel):
    """The content of the file. answers: the ``answers_by`` of its settings."""

    model_config = ConfigDict(frozen=True)

    url: str
    token: str
    answers: str = ""


def answers_by(settings: Settings) -> str:
    """Hashes all that answers to searches depend on but the index: this program, its settings, and their checkpoint."""
    known = settings.model_dump(mode="json", exclude={"index", "weights", *_UNANSWERED})
    # Without a name, the checkpoint is this installation's for the system of the index.
    files = [Path(__file__)] if settings.weights is None else [Path(__file__), expand_home(settings.weights).resolve()]
    for file in files:
        status = file.stat() if file.exists() else None
        known[str(file)] = status and [status.st_ino, status.st_mtime_ns, status.st_size]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def token_of(folder: Path) -> str:
    """Returns the token of all servers of an index, so that open tabs stay allowed after a restart.

    It is kept in the user's own folder: an index may be copied to somebody else. Where that cannot be, it is a new one.
    """
    fresh = secrets.token_urlsafe(24)
    if sys.platform == "win32":
        return fresh
    name = hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()
    path = platformdirs.user_state_path("sketch-search", appauthor=False) / "tokens" / name
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _open_private(path) as file:
            private = _is_ours(file) and not os.fstat(file.fileno()).st_mode & 0o077
            kept = file.read(_MAX_BYTES).decode("ascii", "replace") if private else ""
            if re.fullmatch(r"[\w-]{32}", kept, re.ASCII):
                return kept
            os.fchmod(file.fileno(), 0o600)
            file.seek(0)
            file.truncate()
            file.write(fresh.encode())
    return fresh


@contextmanager
def announced(folder: Path, address: ServerAddress) -> Iterator[None]:
    """Keeps the file in the index while the block runs, if there is one that is writable and not another server's."""
    over = threading.Event()
    with ExitStack() as held:
        if sys.platform != "win32" and not _announces(folder, address, held):
            waiting = threading.Thread(target=_wait_for_the_index, args=(folder, address, held, over), daemon=True)
            waiting.start()
            held.callback(waiting.join)
            held.callback(over.set)
        yield


def _announces(folder: Path, address: ServerAddress, held: ExitStack) -> bool:
    """Writes the file, if it can be written, until ``held`` ends. Returns False if there is no index yet."""
    try:
        held.enter_context(_written(address, folder))
    except OSError as error:
        return not isinstance(error, FileNotFoundError)
    return True


def _wait_for_the_index(folder: Path, address: ServerAddress, held: ExitStack, over: threading.Event) -> None:
    while not over.wait(_AGAIN_SECONDS) and not _announces(folder, address, held):
        pass


def find_server(folder: Path) -> ServerAddress | None:
    """Returns the address of this user's running server for an index, if there is one."""
    if sys.platform == "win32":
        return None
    try:
        with open_regular(folder / NAME, links=False) as file:
            # Shared, so that two programs do not mistake each other for a server.
            text = file.read(_MAX_BYTES) if _is_ours(file) and not _locks(file, shared=True) else b""
        return ServerAddress.model_validate_json(text)
    except (OSError, ValidationError):
        return None


@contextmanager
def _written(address: ServerAddress, folder: Path) -> Iterator[None]:
    """Writes the file. Raises OSError without an index, or if the file cannot be written or is not ours."""
    (folder / "CURRENT").stat()
    path = folder / NAME
    with _open_private(path) as file:
        if not _is_ours(file) or not _locks(file):
            raise PermissionError(f"{path} belongs to another user or another server")
        os.fchmod(file.fileno(), 0o600)  # an existing file may be readable by others
        file.truncate()
        file.write(address.model_dump_json().encode())
        file.flush()
        try:
            yield
        finally:
            with suppress(OSError):  # something else may have been put there
                path.unlink()


def _open_private(path: Path) -> BinaryIO:
    """Opens a file to read and write it; a new one is readable by this user alone. Raises OSError, for a link too."""
    return open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600), "r+b")


def _is_ours(file: BinaryIO) -> bool:
    """Returns True for a regular file with a single name that only this user can have written."""
    status = os.fstat(file.fileno())
    ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
    return ours and status.st_nlink == 1


def _locks(file: BinaryIO, *, shared: bool = False) -> bool:
    """Locks the file until it is closed. Returns False if another process holds the lock."""
    import fcntl

    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
