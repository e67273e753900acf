"""The answer to a search."""

from __future__ import annotations

from pydantic import BaseModel, Field

from service.schemas.photos import Photo
from service.schemas.query import FirstStage


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

    prepare: float = Field(description="Decode, crop and resize the sketch.")
    encode: float = Field(description="Encode it.")
    clusters: float = Field(description="Choose photos: score the clusters' centroids, or [Ret] of all photos.")
    photos: float = Field(description="Read and score the photos.")
    diffusion: float = Field(description="Let photos that look alike lend each other their scores.")
    total: float = Field(description="All of these.")

    def rounded(self) -> StageTimings:
        """The same to the microsecond, as it is answered."""
        return self.model_copy(update={stage: round(milliseconds, 3) for stage, milliseconds in self})


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
