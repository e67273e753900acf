"""Log lines of one cause do not fill the disk."""

from __future__ import annotations

import logging

from service.http.logs import SAME_LINES, SAME_SECONDS, Repeated


def line(number: int, message: str = "broken %d", error: Exception | None = None, **extra: object) -> logging.LogRecord:
    info = None if error is None else (type(error), error, None)
    made = logging.LogRecord("sketch_search", logging.WARNING, __file__, number, message, (7,), info)
    vars(made).update(extra)
    return made


def test_lines_of_one_cause_are_written_a_few_times_and_then_counted() -> None:
    now = [100.0]
    repeated = Repeated(clock=lambda: now[0])
    assert sum(bool(repeated.filter(line(1))) for _ in range(1000)) == SAME_LINES
    now[0] += SAME_SECONDS
    told = line(1)
    assert repeated.filter(told)
    assert told.getMessage() == f"broken 7 ({1000 - SAME_LINES} more lines like this one were held back)"
    after = line(1)
    assert repeated.filter(after)
    assert after.getMessage() == "broken 7"


def test_other_causes_are_told_meanwhile() -> None:
    repeated = Repeated(clock=lambda: 0.0)
    for _ in range(SAME_LINES + 1):
        repeated.filter(line(1, error=ValueError()))
    assert not repeated.filter(line(1, error=ValueError()))
    assert repeated.filter(line(1, error=KeyError()))
    assert repeated.filter(line(2))


def test_every_request_is_told() -> None:
    repeated = Repeated(clock=lambda: 0.0)
    assert all(repeated.filter(line(1, access=object())) for _ in range(SAME_LINES * 3))
