"""Answers errors, all in one shape, each with its status."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from sketch_search.indexer import BadInvocation
from sketch_search.model.terminal import printable
from sketch_search.model.words import UnknownWord
from sketch_search.service.errors import HTTP_ERRORS, QueueFull, ServiceError, Unauthorized
from sketch_search.service.schemas.errors import ErrorDetail, ErrorResponse, describe_problems


def error_answer(
    status: int,
    code: str,
    message: str,
    request_id: str,
    headers: dict[str, str] | None = None,
    nearest: tuple[str, ...] = (),
) -> JSONResponse:
    """Returns an error in the shape that all have. Its paths may be invalid Unicode, which JSON cannot hold."""
    detail = ErrorDetail(code=code, message=printable(message), request_id=request_id, nearest=nearest)
    body = ErrorResponse(error=detail)
    return JSONResponse(body.model_dump(), status, headers)


def is_known(etag: str, known: str | None) -> bool:
    """Returns True if the If-None-Match header ``known`` names ``etag``, even if a proxy has made it weak."""
    return known is not None and (
        known.strip() == "*" or etag in {part.strip().removeprefix("W/") for part in known.split(",")}
    )


def add_error_handlers(app: FastAPI) -> None:
    """Makes the application answer every typed error, and those of the framework, as ``HTTP_ERRORS`` says."""
    for error in HTTP_ERRORS:
        app.exception_handler(error)(_answer_typed)
    app.exception_handler(RequestValidationError)(_answer_invalid)
    app.exception_handler(HTTPException)(_answer_http)


async def _answer_typed(request: Request, error: Exception) -> Response:
    status, code = next(HTTP_ERRORS[one] for one in type(error).__mro__ if one in HTTP_ERRORS)
    headers = {}
    if isinstance(error, QueueFull):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    nearest = error.nearest if isinstance(error, UnknownWord) else ()
    text = str(error)
    # The others may begin with the name of a parameter or a path, which stays lower case.
    if not isinstance(error, ServiceError | BadInvocation):
        text = text[:1].upper() + text[1:]
    return error_answer(status, code, text, request.state.request_id, headers, nearest)


async def _answer_invalid(request: Request, error: RequestValidationError) -> Response:
    problems = error.errors()
    if any(problem["loc"][0] == "path" for problem in problems):
        return error_answer(404, "not_found", "There is nothing here.", request.state.request_id)
    # A problem's location is ("query", "nprobe", "constrained-int"); the parameter is nprobe.
    named = [{**problem, "loc": problem["loc"][1:] or problem["loc"]} for problem in problems]
    return error_answer(422, "bad_parameter", f"{describe_problems(named)}.", request.state.request_id)


async def _answer_http(request: Request, error: HTTPException) -> Response:
    known = {
        404: ("not_found", "There is nothing here."),
        405: ("method_not_allowed", f"This path does not support {request.method}."),
    }
    code, message = known.get(error.status_code, ("bad_request", str(error.detail)))
    headers = dict(error.headers or {})
    # A path that answers GET answers HEAD, too (see ``service.http.middleware.LimitMiddleware``).
    if headers.get("Allow") == "GET":
        headers["Allow"] = "GET, HEAD"
    return error_answer(error.status_code, code, message, request.state.request_id, headers)
