"""Tells commands of the same user, by a file beside the index, at which address the index's server answers.

The server holds the lock of the file for as long as it runs. So the system itself says whether it still does. A file
that a killed server has left is worth nothing, even where its port is somebody else's by now.
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

from service.settings import Settings, index_path

NAME = "server.json"
_MOST_BYTES = 1 << 16
# Seconds after which an index that was not there is looked for again.
_AGAIN_SECONDS = 0.5
# The settings that an answer depends on, besides the index.
_ANSWERED_BY = {
    *("weights", "device", "dtype", "variants", "max_pixels"),
    *("quality", "nprobe", "default_k", "max_k", "serve_originals"),
}


class Address(BaseModel):
    """The content of that file: what a server says of itself.

    Attributes:
        url: on a loopback address. machine: its name, since several may share a disk.
        protected: whether it wants an API key.
        token: of who started it, for what it does to this machine.
        answered_by: the settings that its answers depend on, as JSON.
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
        """Returns the address of a server with these settings."""
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
def told(settings: Settings, url: str, token: str) -> Iterator[None]:
    """While the block runs, commands find the server at ``url`` and its token, if it is on a loopback address.

    Where there is no index yet, that begins when there is. Nothing is told where the folder of the index cannot be
    written, or has a server already.
    """
    over = threading.Event()
    with ExitStack() as held:

        def tell() -> bool:
            """Returns whether to try again, because there is no index yet."""
            own = Address.of(settings, url, token, protected=settings.api_key is not None)
            try:
                held.enter_context(_written(own, index_path(settings)))
            except OSError as error:
                return isinstance(error, FileNotFoundError)
            return False

        def wait_for_the_index() -> None:
            while not over.wait(_AGAIN_SECONDS) and tell():
                pass

        if sys.platform != "win32" and _is_loopback(url) and tell():
            waiting = threading.Thread(target=wait_for_the_index, daemon=True)
            waiting.start()
            held.callback(waiting.join)
            held.callback(over.set)
        yield


def find_server(settings: Settings) -> Address | None:
    """Returns the running server of this user, on this machine, that answers as a search with these settings would.

    None where there is none; and where it wants a key and the settings have none.
    """
    if sys.platform == "win32":
        return None
    try:
        descriptor = os.open(index_path(settings) / NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            # Shared, so that two commands do not take each other for a server.
            text = file.read(_MOST_BYTES) if _is_ours(file) and not _locks(file, shared=True) else b""
        found = Address.model_validate_json(text)
    except (OSError, ValidationError):
        return None
    expected = Address.of(settings, found.url, found.token, protected=found.protected)
    reachable = _is_loopback(found.url) and (settings.api_key is not None or not found.protected)
    return found if found == expected and reachable else None


@contextmanager
def _written(address: Address, folder: Path) -> Iterator[None]:
    """Raises OSError where there is no index, or the file cannot be written or is not ours."""
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
    """Takes the lock of the file, until it is closed. False where another process has it."""
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
