"""Defines the records of answers that go from here to clients as they are. It loads no network."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, Field


@dataclass(frozen=True)
class Guess:
    """A word that the sketch may show."""

    word: Annotated[str, Field(examples=["dog"])]
    probability: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="How often such a guess is right, measured on sketches that the network was not trained on.",
        ),
    ]


@dataclass(frozen=True)
class Unliked:
    """An unwanted photo, and what it hides."""

    id: int
    copies: Annotated[
        tuple[int, ...], Field(description="The ids of its near duplicates behind it, which are hidden, too.")
    ]
    alike: Annotated[
        int, Field(description="How many photos behind it look like it: unlike_kind would hide them as well.")
    ]


@dataclass(frozen=True)
class UnreadFile:
    """A file of the gallery that could not be indexed."""

    path: Annotated[str, Field(description="In the form of photos' paths.")]
    reason: str


@dataclass(frozen=True)
class InfluentialPair:
    """A pair of tokens that the relation score rests on."""

    sketch_cell: int
    photo_cell: int
    drop: Annotated[float, Field(description="The share of the relation score that is lost without this pair.")]


class ProgressState(BaseModel):
    """The state of a build at one moment. photos_per_second, seconds_left: None before the first photo."""

    phase: str = Field(
        default="reading", description="reading, encoding, boxes, clustering, writing; then done or stopped."
    )
    done: int = Field(default=0, description="Photos done in this phase; in encoding, with those done before.")
    total: int = Field(default=0, description="Photos of this phase; 0 if unknown.")
    bad: int = Field(default=0, description="Files that could not be indexed so far.")
    photos_per_second: float | None = None
    seconds_left: float | None = Field(default=None, description="Of this phase.")
    updated: float = Field(default=0, description="Seconds since the epoch.")
