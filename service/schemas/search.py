"""What the HTTP API takes and answers, as pydantic models: the server, the client and the command line share them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, PlainSerializer

from service.schemas.query import FirstStage

# SQLite's largest integer: a longer id is nobody's.
MAX_ID = 2**63 - 1
# Answered to the microsecond.
Milliseconds = Annotated[float, PlainSerializer(lambda value: round(value, 3), return_type=float)]


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


class SearchResult(Photo):
    """A photo found."""

    rank: int = Field(description="From 1, over all pages.")
    score: float = Field(description="Higher is better; what it means depends on the method.")
    cluster: int = Field(description="The cluster it was found in.")


class Cluster(BaseModel):
    """A cluster that photos were scored of."""

    id: int
    score: float = Field(description="The sketch's score with the cluster's centroid; with select=ret by [Ret].")
    size: int = Field(description="Photos in it.")


class StageTimings(BaseModel):
    """Milliseconds a stage."""

    prepare: Milliseconds = Field(description="Crop and resize the sketch.")
    encode: Milliseconds = Field(description="Encode it.")
    clusters: Milliseconds = Field(description="Choose photos: score the clusters' centroids, or [Ret] of all photos.")
    photos: Milliseconds = Field(description="Read and score the photos.")
    diffusion: Milliseconds = Field(description="Let photos that look alike lend each other their scores.")
    total: Milliseconds = Field(description="All of these.")


class SearchResponse(BaseModel):
    """The answer to a search."""

    results: tuple[SearchResult, ...] = Field(description="Best first, ties by id.")
    clusters: tuple[Cluster, ...] = Field(description="The clusters opened, best first.")
    candidates: int = Field(description="Photos in the ranking, of which the results are a part.")
    pairs_scored: int = Field(description="Centroids and photos that the method scored.")
    method: str = Field(description="The method used; what auto became.")
    select: FirstStage = Field(description="What chose the photos that were scored.")
    thin: int | None = Field(description="Candidates that [Ret] let through; null: all.")
    diffused: bool = Field(description="Whether photos that look alike lent each other their scores.")
    budget_spent: bool = Field(description="Whether budget_ms ended the search early.")
    timings_ms: StageTimings
    generation: str = Field(description="The index generation searched.")
    model: str = Field(description="The checkpoint's name.")
    embedder: str = Field(description="What the clusters were made with.")


class ClusterResponse(BaseModel):
    """One page of the photos of a cluster."""

    id: int
    size: int = Field(description="Photos in it.")
    offset: int
    photos: tuple[Photo, ...] = Field(description="By id.")


class ModelInfo(BaseModel):
    """The checkpoint in use."""

    name: str
    checkpoint_sha256: str
    methods: tuple[str, ...]
    best_method: str = Field(description="What method=auto means.")
    nprobe: int = Field(description="Clusters opened unless told otherwise.")
    diffuses: bool = Field(description="Whether it knows how to diffuse scores.")
    device: str
    dtype: str


class IndexInfo(BaseModel):
    """The index in use."""

    generation: str
    photos: int = Field(description="Photos shown; equal files count once.")
    clusters: int
    embedder: str = Field(description="What the clusters were made with.")
    embedder_description: str


class BuildInfo(BaseModel):
    """What the running build of the index, or else the last one, said last."""

    phase: str = Field(description="reading, encoding, clustering, writing; done or stopped once it is over.")
    done: int = Field(description="Photos of this phase that are done.")
    total: int = Field(description="Photos of this phase; 0 where that is not known.")
    bad: int = Field(description="Files that could not be indexed, so far.")
    photos_per_second: float | None
    seconds_left: float | None = Field(description="Of this phase.")
    updated: float = Field(description="Seconds since the epoch.")


class Limits(BaseModel):
    """What this server takes."""

    max_upload_bytes: int
    max_pixels: int
    default_k: int
    max_k: int
    queue: int


class InfoResponse(BaseModel):
    """What is loaded. ``model`` and ``index`` are null, and ``reason`` says why, while the service is not ready."""

    ready: bool
    reason: str | None
    version: str
    model: ModelInfo | None
    index: IndexInfo | None
    refused: str | None = Field(
        description="Why the newest generation on the disk is not used, while ``index`` still answers; null if it is."
    )
    build: BuildInfo | None = Field(description="Null where the index has never been built.")
    limits: Limits


class HealthResponse(BaseModel):
    """Alive, or able to answer."""

    status: Literal["ok", "ready"]


class ErrorDetail(BaseModel):
    """What went wrong, for programs (code), for people (message), and to find it in the log (request_id)."""

    code: str
    message: str
    request_id: str


class ErrorResponse(BaseModel):
    """Every answer that is not a success."""

    error: ErrorDetail
