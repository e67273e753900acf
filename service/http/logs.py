"""Writes the server's log: lines for people, or one JSON object a line for machines."""

import json
import logging
import sys
import time
from typing import Literal

from model.terminal import printable
from service.http.middleware import Access, access_log, log

LogFormat = Literal["text", "json"]


def as_json(message: str) -> str:
    """Returns a message as the log in JSON would have it."""
    return JsonLines().format(log.makeRecord(log.name, logging.INFO, "", 0, message, (), None))


def configure_logging(log_format: LogFormat) -> None:
    """Writes the log to standard error in this format. Text on a terminal has no requests: they hide the address."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if log_format == "json" else TextLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    if log_format == "text" and sys.stderr.isatty():
        access_log.setLevel(logging.WARNING)


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
