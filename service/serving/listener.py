"""How many connections there may be at once, and the socket that accepts no more."""

from __future__ import annotations

import errno
import socket
import sys
import time

# Files that the program itself may have open: the index and the next one, photos being read, libraries.
RESERVE = 32
# With more of them, their buffers would fill the memory of a small machine.
MOST = 1000
# Where descriptors are short in spite of the reserve, nothing is accepted for so long.
PAUSE_SECONDS = 0.5
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def most_connections() -> int:
    """The most that may be open at once: what the limit of file descriptors leaves, at least 8, at most MOST."""
    if sys.platform == "win32":
        return MOST
    import resource

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if files == resource.RLIM_INFINITY else max(8, min(MOST, files - RESERVE))


class Listener(socket.socket):
    """A listening socket that accepts a connection only where fewer than ``most`` of those it has accepted are open.

    Those beyond wait in the kernel. asyncio accepts all that wait before it looks at any of them, and without this a
    crowd would take every descriptor at once; each further attempt would then be a traceback in the log.
    """

    def __init__(self, listening: socket.socket, most: int) -> None:
        """``listening``: is taken over."""
        super().__init__(listening.family, listening.type, listening.proto, fileno=listening.detach())
        self._most = most
        self._accepted: list[socket.socket] = []
        self._paused_until = 0.0

    def accept(self) -> tuple[socket.socket, object]:
        """The next connection. Raises BlockingIOError, as if none waited, where as many are open as may be."""
        if time.monotonic() < self._paused_until:
            raise BlockingIOError
        if len(self._accepted) >= self._most:
            self._accepted = [connection for connection in self._accepted if connection.fileno() != -1]
        if len(self._accepted) >= self._most:
            raise BlockingIOError
        try:
            connection, address = super().accept()
        except OSError as error:
            if error.errno in _EXHAUSTED:
                # asyncio tries as often as connections wait, and logs every failure.
                self._paused_until = time.monotonic() + PAUSE_SECONDS
            raise
        self._accepted.append(connection)
        return connection, address
