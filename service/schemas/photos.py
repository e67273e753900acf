"""Photos and clusters, as they are answered."""

from __future__ import annotations

from pydantic import BaseModel, Field

# SQLite's largest integer: a longer id is nobody's.
MAX_ID = 2**63 - 1


class Photo(BaseModel):
    """A photo of the index. Files with the same bytes are one photo with several paths."""

    id: int
    paths: tuple[str, ...] = Field(description="Relative to the root, with '/'; begins with its name if several roots.")
    photo_url: str | None = Field(description="The original, relative to the server; null where they are not served.")
    thumbnail_url: str = Field(description="A small JPEG of it, relative to the server.")


def photo_url(photo_id: int, originals: bool) -> str | None:
    """Where the original is; None where originals are not served."""
    return f"/photos/{photo_id}" if originals else None


def thumbnail_url(photo_id: int) -> str:
    """Where a small JPEG of it is."""
    return f"/thumbnails/{photo_id}"


class ClusterResponse(BaseModel):
    """One page of the photos of a cluster."""

    id: int
    size: int = Field(description="Photos in it.")
    offset: int
    photos: tuple[Photo, ...] = Field(description="By id.")
