"""Defines the typed errors of the service, how HTTP answers each, and sentences for pydantic's problems."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field

from sketch_search.indexer import BadInvocation, IndexRefused, PhotoUnavailable, UnknownPhoto
from sketch_search.model import errors
from sketch_search.model.words import UnknownWord


class ServiceError(errors.UserError):
    """Base of the errors of this package; the message is a sentence for the client."""


class BadSearch(ServiceError):
    """A parameter is out of range or unsupported by the checkpoint, or a form holds something other than the sketch."""


class BrokenUpload(ServiceError):
    """A multipart body that does not parse."""


class UploadTooLarge(ServiceError):
    """A request body with more bytes than the limit."""


class Unauthorized(ServiceError):
    """The API key is missing or wrong."""


class Forbidden(ServiceError):
    """Not permitted for this client."""


class BuildRefused(ServiceError):
    """A build cannot be started because of what is there."""


class NotFound(ServiceError):
    """Nothing has that id."""


class NotReady(ServiceError):
    """The checkpoint or the index could not be opened."""


class ShardsLost(NotReady):
    """Shards with these names did not answer a question."""

    def __init__(self, names: Sequence[str]) -> None:
        subject = f"The shard {names[0]} does" if len(names) == 1 else f"The shards {', '.join(names)} do"
        super().__init__(f"{subject} not answer. Try again in a moment.")
        self.names = tuple(names)


class ClientGone(ServiceError):
    """The client disconnected."""


class QueueFull(ServiceError):
    """The queue has no room for another search. Holds the whole seconds after which to retry."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"The service is busy. Try again in {retry_after} s.")
        self.retry_after = retry_after


class BrokenOff(ServiceError):
    """An answer that has begun cannot be completed; the connection is closed."""


# The HTTP status of each error, and the ``code`` that programs read.
HTTP_ERRORS: dict[type[Exception], tuple[int, str]] = {
    errors.UndecodableImage: (400, "undecodable_image"),
    BrokenUpload: (400, "undecodable_upload"),
    Unauthorized: (401, "unauthorized"),
    Forbidden: (403, "forbidden"),
    NotFound: (404, "not_found"),
    UnknownPhoto: (404, "not_found"),
    PhotoUnavailable: (404, "photo_unavailable"),
    BuildRefused: (409, "build_refused"),
    errors.ImageTooLarge: (413, "too_many_pixels"),
    UploadTooLarge: (413, "too_many_bytes"),
    errors.UnsupportedImage: (415, "unsupported_image"),
    errors.BlankSketch: (422, "blank_sketch"),
    errors.MalformedSketch: (422, "bad_parameter"),
    errors.CostlyImage: (422, "costly_image"),
    BadInvocation: (422, "bad_parameter"),
    BadSearch: (422, "bad_parameter"),
    # Whatever else a checkpoint cannot do.
    errors.ModelError: (422, "bad_parameter"),
    UnknownWord: (422, "unknown_word"),
    QueueFull: (429, "queue_full"),
    # No client receives this one; it keeps the log truthful, with nginx's number for it.
    ClientGone: (499, "client_gone"),
    IndexRefused: (503, "not_ready"),
    NotReady: (503, "not_ready"),
    errors.GalleryUnusable: (503, "not_ready"),
    errors.DecodingUnavailable: (503, "not_ready"),
}


_MAX_PROBLEMS = 5
_LONGEST_NAME = 64
_LONGEST_VALUE = 40
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?")

# What a parameter must be, by the type of pydantic's error, whose details fill the braces; with "given" no value is
# shown.
_MUST_BE = {
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_parsing", "float_type"), "a number"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "yes or no"),
    **dict.fromkeys(
        ("date_parsing", "date_type", "date_from_datetime_parsing", "date_from_datetime_inexact"),
        "a day such as 2023-12-31",
    ),
    "int_parsing_size": "a smaller number",
    "finite_number": "a finite number",
    "string_type": "text",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "string_too_short": "at least {min_length} characters long",
    "string_too_long": "at most {max_length} characters long",
    "string_unicode": "Unicode",
    "digits": "a number of digits only",
    "folder": "the path of a folder as results show it, such as 2023/summer",
    "missing": "given",
    "too_short": "given at least {min_length} times",
    "too_long": "given at most {max_length} times",
}


class ErrorDetail(BaseModel):
    """An error, for programs (code), for people (message), and for finding it in the log (request_id)."""

    code: str
    message: str
    request_id: str
    nearest: tuple[str, ...] = Field(
        (),
        description="Only with unknown_word: words to use instead, the nearest first.",
        exclude_if=lambda words: not words,
    )


class ErrorResponse(BaseModel):
    """Any answer that is not a success."""

    error: ErrorDetail


def describe_problems(problems: Sequence[Mapping[str, Any]]) -> str:
    """Describes the first of pydantic's problems in one line without a full stop: "k must be at least 1, not 0"."""
    problems_by: dict[str, list[Mapping[str, Any]]] = {}
    for problem in problems[:_MAX_PROBLEMS]:
        # A parameter of a union type has a problem for each type.
        name = str(problem["loc"][0])[:_LONGEST_NAME] if problem["loc"] else ""
        problems_by.setdefault(name, []).append(problem)
    return "; ".join(_describe(name, of_one) for name, of_one in problems_by.items())


def _describe(name: str, problems: Sequence[Mapping[str, Any]]) -> str:
    first = problems[0]
    if first["type"] == "value_error":
        # The message of a validator of this project: of a parameter, or a whole sentence about several.
        message = str(first["ctx"]["error"])
        return f"{name}: {message}" if name else message
    if first["type"] == "word":
        return f"{name} {first['msg']}"
    *others, last = dict.fromkeys(map(_allowed, problems))
    listed = ", ".join(other.replace(" or ", ", ") for other in others)
    allowed = f"{listed} or {last}" if listed else last
    return f"{name} must be {allowed}{'' if allowed.startswith('given') else _quote(first.get('input'))}"


def _allowed(problem: Mapping[str, Any]) -> str:
    limits = problem.get("ctx", {}).items()
    plain = {name: int(limit) if isinstance(limit, float) and limit.is_integer() else limit for name, limit in limits}
    return _MUST_BE.get(problem["type"], "of another form").format(**plain)


def _quote(value: object) -> str:
    """Returns the given value as the end of a sentence, or nothing if no person wrote it."""
    if isinstance(value, bool | int | float):
        return f", not {value}"
    if not isinstance(value, str):
        return ""
    if not value:
        return "; it is empty"
    short = value if len(value) <= _LONGEST_VALUE else f"{value[:_LONGEST_VALUE]}\N{HORIZONTAL ELLIPSIS}"
    return f", not {short if _NUMBER.fullmatch(short) else repr(short)}"
