"""Exit 0 where the service in this container answers, 1 where it does not."""

from __future__ import annotations

import http.client
import os
import sys


def alive(port: int) -> bool:
    """Whether something answers HTTP at ``port`` of this machine, even if it refuses the request.

    It refuses this one where SBIR_ALLOWED_HOSTS does not name localhost. urllib is not used: it would ask a proxy.
    """
    connection = http.client.HTTPConnection("localhost", port, timeout=4)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(0 if alive(int(os.environ.get("SBIR_PORT") or 8000)) else 1)
