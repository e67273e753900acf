"""Writes the server's log: lines for people, or one JSON object per line for machines."""

import json
import logging
import select
import sys
import time
from contextlib import suppress
from typing import Literal, TextIO

from sketch_search.model.terminal import printable
from sketch_search.service.http.middleware import Access, access_log, log

LogFormat = Literal["text", "json"]
# Characters that a pipe with free space accepts at once: 4096 bytes, at most four for a character.
_PIPE_TAKES = 1024


def as_json(message: str) -> str:
    """Returns a message in the format of the JSON log."""
    return JsonLines().format(log.makeRecord(log.name, logging.INFO, "", 0, message, (), None))


def configure_logging(log_format: LogFormat) -> None:
    """Writes the log to standard error in this format. A terminal shows no requests: they hide the address."""
    handler = _Handler()
    handler.setFormatter(JsonLines() if log_format == "json" else TextLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # It logs a line for every malformed form.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    if log_format == "text" and sys.stderr.isatty():
        access_log.setLevel(logging.WARNING)


class _Handler(logging.StreamHandler[TextIO]):
    """Drops lines that a full pipe does not accept. Waiting for a reader would stop the server."""

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record) + self.terminator
        with suppress(OSError, ValueError):
            for start in range(0, len(line), _PIPE_TAKES):
                if sys.platform != "win32" and not select.select((), (self.stream,), (), 0)[1]:
                    return
                self.stream.write(line[start : start + _PIPE_TAKES])
                self.flush()


class TextLines(logging.Formatter):
    """Time (UTC), level, and the message; for a request, its fields as key=value."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line of a record, and its indented trace. File names cannot add lines."""
        line = printable(f"{self.formatTime(record)} {record.levelname} {record.getMessage()}")
        trace = self.formatException(record.exc_info).splitlines() if record.exc_info else ()
        return "\n".join([line, *(f"  {printable(part)}" for part in trace)])


class JsonLines(TextLines):
    """One JSON object per line: ``time``, ``level``, ``logger``; ``message``, or the fields of a request; ``trace``."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"time": self.formatTime(record), "level": record.levelname.lower(), "logger": record.name}
        access = getattr(record, "access", None)
        if isinstance(access, Access):
            return json.dumps({**line, **access.fields()})
        line["message"] = record.getMessage()
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)
