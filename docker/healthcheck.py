"""Exit 0 where the service in this container answers, 1 where it does not."""

import http.client
import os
import sys


def alive(port: int) -> bool:
    """Whether something answers HTTP at ``port`` of this machine, even if it refuses the request.

    It refuses this one where SKETCH_SEARCH_ALLOWED_HOSTS does not name 127.0.0.1. urllib is not used: it would ask a
    proxy. The name localhost is not either: where it means ::1 first, nothing listens there.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=4)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(0 if alive(int(os.environ.get("SKETCH_SEARCH_PORT") or 8000)) else 1)
