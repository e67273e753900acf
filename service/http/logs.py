"""Writes the server's log: lines for people, or one JSON object a line for machines."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Literal

from cachetools import LRUCache

from model.terminal import printable
from service.http.middleware import Access, access_log

LogFormat = Literal["text", "json"]

# Lines of one cause that are written within so many seconds; those beyond are counted.
SAME_LINES = 10
SAME_SECONDS = 60.0
# Causes remembered.
_CAUSES = 1000


def configure_logging(log_format: LogFormat) -> None:
    """Writes the log to standard error in this format. Text on a terminal has no requests: they hide the address."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if log_format == "json" else TextLines())
    handler.addFilter(Repeated())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    if log_format == "text" and sys.stderr.isatty():
        access_log.setLevel(logging.WARNING)


class Repeated(logging.Filter):
    """Holds back lines of one cause that come too often: whoever can cause one could fill the disk with it.

    A cause is a line of the program, with the type of the error if there is one. The first line that is written again
    says how many were held back. Requests are always logged.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        # cause -> when its time began, and its lines since then
        self._seen: LRUCache[tuple[object, ...], tuple[float, int]] = LRUCache(_CAUSES)

    def filter(self, record: logging.LogRecord) -> bool:
        """Returns True for a record that is to be written, to which it may add."""
        if hasattr(record, "access"):
            return True
        error = record.exc_info[0] if record.exc_info else None
        cause = (record.name, record.levelno, record.pathname, record.lineno, error)
        with self._lock:
            now = self._clock()
            began, lines = self._seen.get(cause, (now, 0))
            held_back = 0
            if now - began >= SAME_SECONDS:
                held_back, began, lines = max(0, lines - SAME_LINES), now, 0
            self._seen[cause] = (began, lines + 1)
        if held_back:
            record.msg = f"{record.getMessage()} ({held_back} more lines like this one were held back)"
            record.args = None
        return lines < SAME_LINES


class TextLines(logging.Formatter):
    """Time (UTC), level, and the message; of a request, its fields as key=value."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line of a record, and its indented trace. No name of a photo can bring in a further line."""
        line = printable(f"{self.formatTime(record)} {record.levelname} {record.getMessage()}")
        trace = self.formatException(record.exc_info).splitlines() if record.exc_info else ()
        return "\n".join([line, *(f"  {printable(part)}" for part in trace)])


class JsonLines(TextLines):
    """One JSON object a line: ``time``, ``level``, ``logger``; ``message``, or the fields of a request; ``trace``."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"time": self.formatTime(record), "level": record.levelname.lower(), "logger": record.name}
        access = getattr(record, "access", None)
        if isinstance(access, Access):
            return json.dumps({**line, **access.fields()})
        line["message"] = record.getMessage()
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)
