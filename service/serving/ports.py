"""Listens on ports, and limits how many connections they accept together."""

import socket
import sys
from typing import ClassVar

from model.errors import Refusal

# Files that the program itself may open: the index and the next one, photos, libraries.
RESERVE = 32
# More connections would fill a small machine's memory with their buffers.
MAX_CONNECTIONS = 1000


class PortTaken(Refusal):
    """The address or the port cannot be listened on."""

    def __init__(self, host: str, port: int, error: OSError, setting: str) -> None:
        # Python adds the address to the system's words.
        reason = str(error.strerror).partition(" (while")[0]
        super().__init__(f"cannot listen on {host}, port {port}: {reason}; name another with {setting}")


def most_connections() -> int:
    """Returns how many connections may be open: what the limit of files leaves, 8 to MAX_CONNECTIONS."""
    if sys.platform == "win32":
        return MAX_CONNECTIONS
    import resource

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if files == resource.RLIM_INFINITY else max(8, min(MAX_CONNECTIONS, files - RESERVE))


class Listener(socket.socket):
    """A listening socket that accepts a connection only while fewer than ``most`` are open on all listeners together.

    Others wait in the kernel. asyncio accepts all that wait before it looks at any of them, so that a crowd would take
    every descriptor at once, and each further attempt would be a traceback in the log.
    """

    # All listeners share this list, as they share the descriptors of the process.
    _accepted: ClassVar[list[socket.socket]] = []

    def __init__(self, listening: socket.socket, most: int) -> None:
        super().__init__(listening.family, listening.type, listening.proto, fileno=listening.detach())
        self._most = most

    def accept(self) -> tuple[socket.socket, object]:
        """Returns the next connection. Raises BlockingIOError if none waits, or too many are open."""
        if len(self._accepted) >= self._most:
            self._accepted[:] = [connection for connection in self._accepted if connection.fileno() != -1]
        if len(self._accepted) >= self._most:
            raise BlockingIOError
        connection, address = super().accept()
        self._accepted.append(connection)
        return connection, address


def listening(host: str, port: int, setting: str = "--port or SBIR_PORT") -> Listener:
    """Returns a socket that listens; port 0 takes any free one.

    Raises PortTaken, which names ``setting`` as what to change.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return Listener(socket.create_server((host, port), family=family), most_connections())
    except OSError as error:
        raise PortTaken(host, port, error, setting) from error


def address(host: str, port: int) -> str:
    """Returns the address as browsers take it."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
