"""What a search found, and what it took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# What chooses the photos that are scored.
Select = Literal["clusters", "ret"]


@dataclass(frozen=True)
class Hit:
    """A photo found: rank from 1, score (higher is better), the cluster it was in, the paths that hold it."""

    id: int
    rank: int
    score: float
    cluster: int
    paths: tuple[str, ...]


@dataclass(frozen=True)
class OpenedCluster:
    """A cluster that photos were scored of: the score of its centroid, and how many photos it has."""

    id: int
    score: float
    size: int


@dataclass(frozen=True)
class Timings:
    """Milliseconds a stage: crop and resize, encode, choose by centroids or [Ret], score photos, diffuse, all of it."""

    prepare: float
    encode: float
    clusters: float
    photos: float
    diffusion: float
    total: float


@dataclass(frozen=True)
class SearchOutcome:
    """What a search found and what it took.

    Attributes:
        results: at most k hits, best first, ties by id.
        clusters: the clusters opened, best first.
        candidates: photos in the ranking, of which the results are a part.
        pairs_scored: sketch-centroid and sketch-photo pairs that ``method`` scored.
        select: what chose.
        thin: how many candidates [Ret] let through to the relation network; None for all.
        diffused: whether photos that look alike lent each other their scores.
        budget_spent: whether ``budget_ms`` ended the search before all the photos chosen were scored.
        method, generation, model, embedder: the method used, the index generation, the checkpoint's name, and what
            the clusters were made with.
    """

    results: tuple[Hit, ...]
    clusters: tuple[OpenedCluster, ...]
    candidates: int
    pairs_scored: int
    select: Select
    thin: int | None
    diffused: bool
    budget_spent: bool
    timings: Timings
    method: str
    generation: str
    model: str
    embedder: str
