"""Defines the parameters and the answer of /explain. A cell is row * grid + column, from the top left."""

import base64
import io
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from sketch_search.model.answers import InfluentialPair
from sketch_search.service.schemas.query import (
    LONGEST,
    PAGE,
    THING_TEXT,
    WRITING,
    AtLeast0,
    Colours,
    Id,
    Params,
    PictureKind,
    Places,
    Things,
    ThingText,
    Writing,
)
from sketch_search.service.schemas.search import DetectedBox, Photo, SeenThing, optional

if TYPE_CHECKING:
    from PIL import Image

MAX_PHOTOS = 12


class LocateParams(Params):
    """The query parameters of where photos show the things of a drawing."""

    photo: list[Id] = Field(min_length=1, max_length=MAX_PHOTOS, description="Ids of photos to compare; repeatable.")
    like: Id | None = Field(
        default=None,
        description="The id of a photo to compare with instead of a sketch, to explain why the photos are like it. The "
        "body is then empty.",
        examples=[17],
    )
    kind: PictureKind = Field(default="sketch", description="What the body is; photo: explain why photos are like it.")
    text: str | None = Field(
        default=None, max_length=LONGEST, description="As in a search: words lead things. /locate takes it alone, too."
    )
    thing_text: tuple[ThingText, ...] = THING_TEXT
    things: Things = Field(default="auto", description="As in a search.")
    places: Places = Field(default="auto", description="As in a search.")
    colours: Colours = Field(default="auto", description="As in a search.")
    writing: Writing = WRITING
    page: AtLeast0 = PAGE

    @property
    def splits(self) -> bool:
        """Whether one picture is divided into things."""
        return self.things == "auto" and self.kind == "sketch"


class ExplainParams(LocateParams):
    """The query parameters of an explanation."""

    nearest: int = Field(
        default=6,
        ge=0,
        le=20,
        description="How many of the photos that look most like the sketch, and like each of the photos, to list.",
    )


class ExplainedImage(BaseModel):
    """One picture as the network saw it, and where [Ret] looked."""

    image: str = Field(description="Data URL of exactly the square the network saw.")
    attention: list[list[float]] = Field(description="By head: [Ret]'s attention to each cell in the last block, or 0.")
    attention_layers: list[list[float]] = Field(description="By block: the same, averaged over the heads.")
    kept: list[list[int]] = Field(description="The cells left after each token selection, in order.")

    def picture(self) -> "Image.Image":
        """Opens the square as RGB."""
        from PIL import Image

        return Image.open(io.BytesIO(base64.b64decode(self.image.partition(",")[2]))).convert("RGB")


class CrossAttention(BaseModel):
    """The attention of one side's [Ret] to the other side's patches, by head."""

    sketch_to_photo: list[list[float]] = Field(description="heads x photo_cells")
    photo_to_sketch: list[list[float]] = Field(description="heads x sketch_cells")


class MatchedCells(BaseModel):
    """A sketch token and the best of the photo's tokens."""

    sketch_cell: int
    photo_cell: int
    cosine: float


class NearPhoto(Photo):
    """A photo of the index that looks like the sketch, or like a photo, by [Ret] alone: before diffusion."""

    cosine: float = Field(
        description="How near it is, -1 to 1. To a sketch: the cosine of both [Ret], lowered by the photo's prior if "
        "the network has one. To a photo: the cosine of both [Ret] without the mean of all photos."
    )
    rank: int = Field(description="Its rank among all photos by nearness to the given sketch or photo.")


class ShownThing(BaseModel):
    """Where a photo is most like a thing of the drawing."""

    cell: int = Field(description="The region: row * region_grid + column, from the top left.")
    cells: tuple[int, ...] = Field(
        description="The regions connected with it that match nearly as well, itself included, ascending: about what "
        "the photo shows of the thing."
    )
    detected: DetectedBox | None = optional("The detected box that fits the thing best, if one may be of its kind.")
    cosine: float = Field(
        description="How well the region matches the thing as it was drawn, -1 to 1. From 0.75 on, most regions in the "
        "first photos are on such a thing; below 0.5, few, but of people and of what was drawn in a hurry half or more."
    )
    colour: str = Field(
        description="The mean colour, as #rrggbb, of the region of `cells`, or in `detected`, that is nearest to the "
        "thing's colours; of `cell` if these do not count.",
        examples=["#7a4a2b"],
    )
    colour_distance: float | None = Field(description="From the thing's colours, CIE76; null if these do not count.")


class LocatedPhoto(Photo):
    """A photo of the index, and where it shows the things."""

    things: tuple[ShownThing, ...] = Field(description="Each of `things` of the drawing; empty without them.")
    unseen: tuple[str, ...] = optional("What `text` and words of things name, and the photo most likely lacks.", ())


class LocateResponse(BaseModel):
    """Where photos show the things of a drawing, or what a photo shows."""

    things: tuple[SeenThing, ...] = Field(
        description="The things of the drawing, at least one; a photo is one thing. Empty if the network or the index "
        "has no regions."
    )
    region_grid: int | None = Field(description="Regions along one side of a photo; null without them.")
    photos: list[LocatedPhoto] = Field(description="In the order asked for.")
    total_ms: float = Field(description="Milliseconds, without preparing the picture.")
    generation: str = Field(description="The index generation.")
    model: str = Field(description="The checkpoint's name.")


class ExplainedPhoto(ExplainedImage, Photo):
    """A photo of the index, compared with the sketch or with the photo in its place."""

    relation_score: float | None = Field(description="As in a search; null if it is untrained, or of photos.")
    ret_distance: float = Field(description="Distance of normalised [Ret] tokens, increased by prior and guesses.")
    sketch_cells: list[int] = Field(description="Cells of the sketch's tokens that are compared.")
    photo_cells: list[int] = Field(
        description="Cells of the photo's tokens that are compared; with the default network more than in a search."
    )
    correspondence: list[list[float]] = Field(
        description="sketch_cells x photo_cells: cosines of the tokens after cross-attention; of photos, as they left "
        "the encoder, without their mean."
    )
    things: tuple[ShownThing, ...] = optional("Each of `things` of the drawing.", ())
    cross_attention: CrossAttention | None = Field(description="Null if the network has none, and of photos.")
    matches: list[MatchedCells] = Field(
        description="Each sketch token's best photo token, strongest first. With the default network, a patch that the "
        "whole sketch resembles is preferred."
    )
    influence: list[InfluentialPair] = Field(description="The at most 10 pairs that matter most, strongest first.")
    ret_rank: int = Field(
        description="Its rank by [Ret] alone among all photos. If diffusion moved it up, photos in `nearest` are "
        "nearer."
    )
    nearest: list[NearPhoto] = Field(description="The photos that look most like it, nearest first, without itself.")


class ExplainTimings(BaseModel):
    """Milliseconds of each stage."""

    encode: float = Field(description="Read, prepare and encode the sketch and the photos.")
    pairs: float = Field(description="Compare the sketch with each photo.")
    nearest: float = Field(description="Find the nearest photos.")
    total: float = Field(description="All of these.")


class ExplainResponse(BaseModel):
    """Why photos match a sketch, or are like a photo."""

    grid: int = Field(description="Patches along one side.")
    sketch: ExplainedImage = Field(description="The sketch, or with like or kind=photo the photo in its place.")
    things: tuple[SeenThing, ...] = optional("As in a search, if they are looked for in regions.", ())
    region_grid: int | None = optional("With `things`, and only then: regions along one side of a photo.")
    photos: list[ExplainedPhoto] = Field(description="In the order asked for.")
    nearest: list[NearPhoto] = Field(description="The photos most like the given sketch or photo, nearest first.")
    timings_ms: ExplainTimings
    method: str = Field(description="The checkpoint's best method, which ranks searches; ret if photos are compared.")
    generation: str = Field(description="The index generation.")
    model: str = Field(description="The checkpoint's name.")
