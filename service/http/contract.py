"""What the OpenAPI document says of bodies and answers where FastAPI cannot tell it from the handlers."""

from __future__ import annotations

from typing import Any

from service.schemas import ErrorResponse

_BINARY = {"type": "string", "format": "binary"}
PICTURE_BODY = {
    "requestBody": {
        "required": False,
        "description": "The sketch: JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC, told by its bytes and not by its "
        "content type; as the raw body, or as the field `file` of a form. With `kind=photo` it is a photo instead. "
        "With `like`, or with `text` in a search, it may be left out.",
        "content": {
            "*/*": {"schema": _BINARY},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": _BINARY},
                    "additionalProperties": False,
                }
            },
        },
    }
}


def error_answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors with these statuses."""
    meaning = {
        400: "The Host header is none of SBIR_ALLOWED_HOSTS, or the body is damaged, cut short or too slow.",
        401: "The API key is missing or wrong.",
        404: "Nothing has this id.",
        413: "Too many bytes or pixels.",
        415: "Not an image type that is read here.",
        422: "A sketch that is blank or too costly to decode, a parameter out of range, a word that the vocabulary "
        "does not have, or a form with anything else than the sketch.",
        429: "The queue is full, or SBIR_RATE_LIMIT is reached; try again after Retry-After seconds.",
        503: "The checkpoint or the index could not be opened.",
    }
    return {status: {"model": ErrorResponse, "description": meaning[status]} for status in statuses}


def image_answers(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """An image of one of these media types, or that it is the one known."""
    return {
        200: {"content": {kind: {"schema": _BINARY} for kind in kinds}, "description": "The image, with its ETag."},
        304: {"description": "If-None-Match names the image as it is."},
    }
