"""Tells commands of the same user, by a file beside the index, at which address the index's server answers.

The server locks the file for as long as it runs, so that a file that a killed server has left is worth nothing.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from indexer.store.files import open_regular
from service.settings import Settings, index_path

NAME = "server.json"
_MAX_BYTES = 1 << 16
# Seconds after which a missing index is looked for again.
_AGAIN_SECONDS = 0.5
# The settings that an answer depends on, besides the index.
_ANSWERED_BY = {
    *("weights", "device", "dtype", "variants", "max_pixels"),
    *("quality", "nprobe", "default_k", "max_k", "serve_originals"),
}


class Address(BaseModel):
    """The content of that file: what a server says of itself.

    ``url`` is on a loopback address; ``machine`` tells apart those that share a disk; ``protected`` servers want an API
    key; ``token`` is that of who started it; its answers depend on ``answered_by``, settings as JSON.
    """

    model_config = ConfigDict(frozen=True)

    url: str
    machine: str
    index: str
    protected: bool
    token: str
    answered_by: str

    @classmethod
    def of(cls, settings: Settings, url: str, token: str, *, protected: bool) -> Self:
        weights = None if settings.weights is None else settings.weights.expanduser().absolute()
        return cls(
            url=url,
            machine=socket.gethostname(),
            index=os.path.realpath(index_path(settings)),
            protected=protected,
            token=token,
            answered_by=settings.model_copy(update={"weights": weights}).model_dump_json(include=_ANSWERED_BY),
        )


@contextmanager
def announced(settings: Settings, url: str, token: str) -> Iterator[None]:
    """Lets commands find the server at ``url``, a loopback address, and its token while the block runs.

    Without an index this begins when there is one. Nothing is announced if the index's folder cannot be written, or has
    a server already.
    """
    over = threading.Event()
    with ExitStack() as held:

        def announce() -> bool:
            """Returns True to try again, because there is no index yet."""
            own = Address.of(settings, url, token, protected=settings.api_key is not None)
            try:
                held.enter_context(_written(own, index_path(settings)))
            except OSError as error:
                return isinstance(error, FileNotFoundError)
            return False

        def wait_for_the_index() -> None:
            while not over.wait(_AGAIN_SECONDS) and announce():
                pass

        if sys.platform != "win32" and _is_loopback(url) and announce():
            waiting = threading.Thread(target=wait_for_the_index, daemon=True)
            waiting.start()
            held.callback(waiting.join)
            held.callback(over.set)
        yield


def find_server(settings: Settings) -> Address | None:
    """Returns this user's server on this machine that answers like a search with these settings, or None."""
    if sys.platform == "win32":
        return None
    try:
        with open_regular(index_path(settings) / NAME, links=False) as file:
            # Shared, so that two commands do not take each other for a server.
            text = file.read(_MAX_BYTES) if _is_ours(file) and not _locks(file, shared=True) else b""
        found = Address.model_validate_json(text)
    except (OSError, ValidationError):
        return None
    expected = Address.of(settings, found.url, found.token, protected=found.protected)
    reachable = _is_loopback(found.url) and (settings.api_key is not None or not found.protected)
    return found if found == expected and reachable else None


@contextmanager
def _written(address: Address, folder: Path) -> Iterator[None]:
    """Writes the file. Raises OSError without an index, or if the file cannot be written or is not ours."""
    (folder / "CURRENT").stat()
    path = folder / NAME
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    with open(descriptor, "r+b") as file:
        if not _is_ours(file) or not _locks(file):
            raise PermissionError(f"{path} belongs to somebody else, or to another server")
        os.fchmod(descriptor, 0o600)  # one that was there may be open to others
        file.truncate()
        file.write(address.model_dump_json().encode())
        file.flush()
        try:
            yield
        finally:
            with suppress(OSError):  # somebody may have put something else there
                path.unlink()


def _is_ours(file: BinaryIO) -> bool:
    """Returns True for a plain file that only this user can have written, and that has no other name."""
    status = os.fstat(file.fileno())
    own = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
    return own and status.st_nlink == 1


def _locks(file: BinaryIO, *, shared: bool = False) -> bool:
    """Takes the lock of the file, until it is closed. Returns False if another process has it."""
    import fcntl

    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_loopback(url: str) -> bool:
    try:
        return ipaddress.ip_address(urlsplit(url).hostname or "").is_loopback
    except ValueError:
        return False
