"""Photos and clusters, as they are answered."""

from __future__ import annotations

import re
from typing import Annotated, Any, TypedDict

from pydantic import BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError

# SQLite's largest integer: a longer id is nobody's.
MAX_ID = 2**63 - 1
_DIGITS = re.compile("[0-9]+")


def _only_digits(given: Any) -> Any:
    """Refuse what else Python reads as a number: +1, 1_0, 1.0, digits of other scripts, spaces around them."""
    if isinstance(given, str) and not _DIGITS.fullmatch(given):
        raise PydanticCustomError("digits", "An id has digits only")
    return given


# The number of a photo or a cluster, as it comes with a request.
Id = Annotated[int, Field(ge=0, le=MAX_ID), BeforeValidator(_only_digits)]


class Photo(BaseModel):
    """A photo of the index. Files with the same bytes are one photo with several paths."""

    id: int
    paths: tuple[str, ...] = Field(description="Relative to the root, with '/'; begins with its name if several roots.")
    photo_url: str | None = Field(description="The original, relative to the server; null where they are not served.")
    thumbnail_url: str = Field(description="A small JPEG of it, relative to the server.")


class Addresses(TypedDict):
    """Where the files of a photo are, as ``Photo`` has it."""

    photo_url: str | None
    thumbnail_url: str


def addresses(photo_id: int, originals: bool) -> Addresses:
    """Where the files of a photo are. originals: whether originals are served."""
    return {"photo_url": f"/photos/{photo_id}" if originals else None, "thumbnail_url": f"/thumbnails/{photo_id}"}


class PhotosResponse(BaseModel):
    """Photos that were named."""

    photos: tuple[Photo, ...] = Field(description="In the order asked for.")


class ClusterResponse(BaseModel):
    """One page of the photos of a cluster."""

    id: int
    size: int = Field(description="Photos in it.")
    offset: int
    photos: tuple[Photo, ...] = Field(description="By id.")
