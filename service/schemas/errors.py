"""The one shape that errors are answered in."""

from __future__ import annotations

from pydantic import BaseModel


class ErrorDetail(BaseModel):
    """What went wrong, for programs (code), for people (message), and to find it in the log (request_id)."""

    code: str
    message: str
    request_id: str


class ErrorResponse(BaseModel):
    """Every answer that is not a success."""

    error: ErrorDetail
