"""Waiting for a state: as long as a busy machine may need for it, but not for ever.

Nothing here waits for time to pass: between two looks for a state there is only a moment, in which others get the
processor. What a test waits for comes within seconds; on a machine that is busy with other things it may take many
times as long. What does not come at all fails the test in words.
"""

import threading
import time
from collections.abc import Callable

#: Seconds. Below the limit of a whole test, so that the test says itself what did not come.
PATIENCE = 240
# Seconds from one look to the next, at first and at most. Without them a waiting test takes the processor from what it
# waits for.
_FIRST_MOMENT, _MOMENT = 0.002, 0.05
#: Seconds after which a test marked `soak` is ended; pyproject.toml has those for all others.
SOAK_TIMEOUT = 2 * 60 * 60


def wait_until(holds: Callable[[], object], otherwise: str, patience: float | None = None) -> None:
    """Ask again and again until the answer is true. AssertionError, with ``otherwise``: it was not in time."""
    seconds = PATIENCE if patience is None else patience
    end, moment = time.monotonic() + seconds, _FIRST_MOMENT
    while not holds():
        assert time.monotonic() < end, f"{otherwise}, after {seconds} seconds"
        time.sleep(moment)
        moment = min(2 * moment, _MOMENT)


def wait_for(event: threading.Event, otherwise: str) -> None:
    """Wait until ``event`` is set. AssertionError, with ``otherwise``: it was not in time."""
    assert event.wait(PATIENCE), f"{otherwise}, after {PATIENCE} seconds"


def join(thread: threading.Thread) -> None:
    """Wait until a thread has ended. AssertionError: it was not in time."""
    thread.join(PATIENCE)
    assert not thread.is_alive(), f"the thread {thread.name} has not ended, after {PATIENCE} seconds"
