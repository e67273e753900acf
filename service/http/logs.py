"""How the server's log is written: lines for people, or one JSON object a line for machines."""

from __future__ import annotations

import json
import logging
import time
from typing import Literal

from service.http.middleware import Access

LogFormat = Literal["text", "json"]


def configure_logging(kind: LogFormat) -> None:
    """Have everything that this program logs written to standard error in this format."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if kind == "json" else TextLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])


class TextLines(logging.Formatter):
    """Time (UTC), level, and the message; of a request, its fields as key=value."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")


class JsonLines(TextLines):
    """One JSON object a line: ``time``, ``level``, ``logger``; ``message``, or the fields of a request; ``trace``."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        line = {"time": self.formatTime(record), "level": record.levelname.lower(), "logger": record.name}
        access = getattr(record, "access", None)
        if isinstance(access, Access):
            return json.dumps({**line, **access.fields()})
        line["message"] = record.getMessage()
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)
