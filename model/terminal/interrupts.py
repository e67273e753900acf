"""Ctrl-C while a program is still being loaded."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# As shells say it: 128 and the number of the signal, SIGINT.
STOPPED = 130


@contextmanager
def importing() -> Iterator[None]:
    """While the block imports libraries, Ctrl-C ends the program at once, with code 130.

    Libraries catch the exception that Ctrl-C raises among their imports, or make another one of it, such as a missing
    module. Nothing has begun yet, so that nothing needs to be tidied up.
    """
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not usual or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, _end_at_once)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end_at_once(*_: object) -> None:
    os.write(2, b"stopped.\n")
    os._exit(STOPPED)
